"""Each form's head makes the trained model the distribution that the data came from.

A few contexts with known p(v | context); the scores are free parameters; the objective sees random
batches and nothing else. What its head says must then be p, and what the heads of other forms say
must not.
"""

import pytest
import torch
from torch import Tensor

from headless.objectives import ContrastiveWeightTying, CrossEntropy, LMHead, Objective
from headless.objectives.base import log_unigram

CONTEXTS, V = 10, 60


def world() -> tuple[Tensor, Tensor]:
    """p(v | context) [C, V], Zipfian, some of it certain; and counts of a long text [V]."""
    generator = torch.Generator().manual_seed(0)
    zipf = torch.arange(1, V + 1, dtype=torch.float64).log().neg()
    noise = torch.randn(CONTEXTS, V, generator=generator, dtype=torch.float64)
    p_CV = (zipf + 1.5 * noise).softmax(dim=-1)
    p_CV[0] = p_CV[0] * 0.2
    p_CV[0, 3] += 0.8
    return p_CV, (p_CV.mean(dim=0) * 1e7).round().long()


def trained(objective: Objective, rows: int, steps: int = 900) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [C, V] that minimise an objective on random batches; p; and the counts."""
    p_CV, count_V = world()
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    scores_CV = torch.zeros(CONTEXTS, V, dtype=torch.float64, requires_grad=True)
    # With the identity for a table, a hidden state is the row of scores itself.
    table = torch.eye(V, dtype=torch.float64)
    objective.setup(V, V, 0.02)
    objective.double().set_unigram(count_V)
    if isinstance(objective, ContrastiveWeightTying) and not objective.tied:
        objective.weight_VD.data.copy_(table).requires_grad_(False)
        objective.weight_VD.requires_grad_(False)
    parameters = [scores_CV, *(p for p in objective.parameters() if p.requires_grad)]
    optimizer = torch.optim.Adam(parameters, lr=0.08)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    mean_CV = torch.zeros_like(scores_CV)
    for step in range(steps):
        context = torch.randint(CONTEXTS, (rows,), generator=generator)
        target = torch.multinomial(p_CV[context], 1, generator=generator).squeeze(1)
        loss = objective(scores_CV[context], target, table).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step >= steps // 2:
            mean_CV += scores_CV.detach() / (steps - steps // 2)
    return mean_CV, p_CV, count_V


def excess(head: LMHead, scores_CV: Tensor, p_CV: Tensor) -> float:
    """Nats above the entropy of p, under a head."""
    log_p = head.logits(scores_CV).log_softmax(dim=-1)
    return float((p_CV * (p_CV.log() - log_p)).sum(dim=-1).mean())


FORMS = {
    "count": {},
    "count, T=2": {"temperature": 2.0},
    "count, learned T": {"learn_temperature": True, "temperature": 2.0},
    "count, untied": {"tied": False},
    "count, stop_gradient": {"stop_gradient": True},
    "count, sampled": {"num_sampled": 64},
    "mask": {"duplicates": "mask"},
    "mask, sampled": {"duplicates": "mask", "num_sampled": 64},
    "unique": {"duplicates": "unique"},
    "unique, sampled": {"duplicates": "unique", "num_sampled": 10},
    "logq": {"duplicates": "logq"},
    "logq, sampled": {"duplicates": "logq", "num_sampled": 10},
}


@pytest.mark.parametrize("name", FORMS)
def test_the_head_recovers_the_distribution_and_the_wrong_one_does_not(name: str) -> None:
    rows = 128
    objective = ContrastiveWeightTying(**FORMS[name])
    scores_CV, p_CV, count_V = trained(objective, rows)
    table = torch.eye(V, dtype=torch.float64)
    head = objective.lm_head(table, count_V)
    right = excess(head, scores_CV, p_CV)
    assert right < 0.015
    plain, calibrated = (
        head._replace(bias_V=b, own_excess_V=None) for b in (None, log_unigram(count_V))
    )
    wrong = {
        "count": [plain],
        "mask": [plain, calibrated],
        "unique": [plain, calibrated],
        "logq": [calibrated],
    }[objective.duplicates]
    for other in wrong:
        assert excess(other, scores_CV, p_CV) > max(2.0 * right, 0.02)


@pytest.mark.parametrize("bias", ["none", "fixed", "initial"])
def test_cross_entropys_head_is_the_one_it_was_trained_with(bias: str) -> None:
    objective = CrossEntropy(tied=True, unigram_bias=bias)  # type: ignore[arg-type]
    scores_CV, p_CV, count_V = trained(objective, 128)
    head = objective.lm_head(torch.eye(V, dtype=torch.float64), count_V)
    assert excess(head, scores_CV, p_CV) < 0.015
    if bias != "none":
        assert excess(head._replace(bias_V=None), scores_CV, p_CV) > 0.3


def test_a_cosine_head_normalises_what_it_scores() -> None:
    objective = ContrastiveWeightTying(normalize=True, temperature=0.1)
    hidden, table = torch.randn(5, 8), torch.randn(V, 8)
    head = objective.lm_head(table, torch.ones(V, dtype=torch.long))
    cosines = torch.nn.functional.cosine_similarity(hidden[:, None], table[None], dim=-1)
    torch.testing.assert_close(head.scores(hidden), cosines / 0.1)


def test_a_correction_is_a_distribution_and_vanishes_where_it_should() -> None:
    scores = torch.randn(4, V, dtype=torch.float64)
    head = LMHead(torch.eye(V, dtype=torch.float64), None, own_excess_V=torch.full((V,), -0.9))
    r = scores.softmax(dim=-1)
    expected = r * (1 - 0.9 * r)
    torch.testing.assert_close(
        head.logits(scores).softmax(dim=-1), expected / expected.sum(dim=-1, keepdim=True)
    )
