"""From a contrastive objective to the softmax that its calibrated head is."""

import copy

import pytest
import torch
import torch.nn.functional as F

from headless.objectives import ContrastiveWeightTying, CrossEntropy
from headless.objectives.switched import Switched, switched

N, D, V = 30, 8, 20
FORMS = {
    "tied": {"temperature": 0.5},
    "untied": {"tied": False},
    "learned": {"learn_temperature": True, "temperature": 0.7},
    "cosine": {"normalize": True, "temperature": 0.1},
    "unique": {"duplicates": "unique", "num_sampled": 3},
    "logq": {"duplicates": "logq"},
}


def made(**options: object) -> Switched:
    objective = Switched(ContrastiveWeightTying(**options), 0.5)
    objective.setup(V, D, 1.0)
    objective.double().set_unigram(torch.arange(V))
    return objective


@pytest.mark.parametrize("form", FORMS)
def test_the_softmax_begins_as_the_calibrated_head_and_is_trained_on(form: str) -> None:
    objective = made(**FORMS[form])
    hidden, table = torch.randn(N, D).double(), torch.randn(V, D).double().requires_grad_()
    targets = torch.randint(0, V, (N,))
    targets[3] = -100
    contrastive = copy.deepcopy(objective.contrastive)
    torch.manual_seed(1)
    before = objective(hidden, targets, table)
    torch.manual_seed(1)
    torch.testing.assert_close(before.loss, contrastive(hidden, targets, table).loss)
    before.loss.backward()
    assert not objective.bias_V.grad.any()  # there, for DDP, and 0
    counts = torch.arange(V)
    head = objective.lm_head(table, counts)
    assert head.is_calibrated
    assert objective.num_candidates(V, 7, N) < V

    objective.switch(counts)
    loss = objective(hidden, targets, table).loss
    expected = F.cross_entropy(head.logits(hidden), targets)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for parameter in (*objective.parameters(), table):
        parameter.grad = None
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in objective.parameters())
    if objective.contrastive.tied:
        assert table.grad.any()
    with torch.no_grad():
        objective.bias_V.add_(torch.randn(V))
    trained = objective.lm_head(table, counts)
    assert not trained.is_calibrated
    loss = objective(hidden, targets, table).loss
    torch.testing.assert_close(F.cross_entropy(trained.logits(hidden), targets), loss)
    assert objective.num_candidates(V, 7, N) == V


def test_a_state_dict_knows_on_which_side_it_is() -> None:
    first, second = made(), made()
    first.switch(torch.arange(V))
    second.load_state_dict(first.state_dict())
    assert second.is_switched
    assert torch.equal(second.first_bias_V, first.first_bias_V)
    second.load_state_dict(made().state_dict())
    assert not second.is_switched


def test_log_p_stays_float32() -> None:
    objective = made().float()
    objective.switch(torch.arange(V))
    before = objective.first_bias_V.clone()
    assert torch.equal(objective.bfloat16().first_bias_V, before)


@pytest.mark.parametrize(
    ("inner", "at"),
    [
        (CrossEntropy(), 0.5),
        (ContrastiveWeightTying(duplicates="mask"), 0.5),
        (ContrastiveWeightTying(), 1.0),
        (ContrastiveWeightTying(), 0.0),
    ],
)
def test_what_cannot_be_switched_is_refused(inner, at: float) -> None:
    with pytest.raises(ValueError, match="switch_at"):
        switched(inner, at)
