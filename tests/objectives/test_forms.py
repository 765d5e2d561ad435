"""Every form of the contrastive loss against its definition: a weight a token, summed over V."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headless.objectives import (
    Combined,
    ContrastiveWeightTying,
    CrossEntropy,
    UniqueTargets,
    contrastive_weight_tying_loss,
    cross_entropy_loss,
    log_unigram,
    unique_targets,
)
from headless.objectives.candidates import candidates, sample_absent

V, D, N = 40, 8, 48
FORMS = ["count", "mask", "unique", "logq"]


def batch(seed: int = 0, ignored: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, targets with copies and ignored rows, a table, and log q."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64).requires_grad_()
    table = torch.randn(V, D, generator=generator, dtype=torch.float64).requires_grad_()
    log_q = log_unigram(1000 / torch.arange(1, V + 1)).double()
    targets = torch.multinomial(log_q.exp(), N, replacement=True, generator=generator)
    if ignored:
        targets[::5] = -100
    return hidden, targets, table, log_q


def defined(scores_NV: Tensor, targets: Tensor, weight_V: Tensor, own: str) -> Tensor:
    """-s_u + log sum_v w_v exp(s_v), one row at a time; the own target's weight is w_u or 1."""
    losses = []
    for scores_V, target in zip(scores_NV, targets.tolist(), strict=True):
        if target == -100:
            continue
        row_V = weight_V.clone()
        if own == "one":
            row_V[target] = 1.0
        losses.append((row_V * scores_V.exp()).sum().log() - scores_V[target])
    return torch.stack(losses).mean()


def weights(form: str, pool: Tensor, log_q: Tensor) -> tuple[Tensor, str]:
    """The weights of all V tokens by the definition of a form, for the targets of all rows."""
    pool = pool[pool != -100]
    count = torch.bincount(pool, minlength=V).double()
    if form in ("count", "mask"):
        return count, "one" if form == "mask" else "weight"
    if form == "unique":
        return (count > 0).double(), "weight"
    included = 1 - (1 - log_q.exp()) ** (len(pool) - 1)
    return (count > 0) / included, "one"


def assert_same(ours: Tensor, theirs: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for a, b in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("elsewhere", [0, 100], ids=["own rows", "other rows too"])
@pytest.mark.parametrize("padding", [0, 24])
@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_are_the_definitions(form: str, padding: int, elsewhere: int) -> None:
    hidden, targets, table, log_q = batch()
    pool = torch.cat([targets, batch(1)[1].repeat(3)[:elsewhere]])
    unique = unique_targets(targets, pool)
    unique = UniqueTargets(
        torch.cat([unique.ids_M, unique.ids_M.new_zeros(padding)]),
        unique.inverse_N,
        torch.cat([unique.count_M, unique.count_M.new_zeros(padding)]),
    )
    loss = contrastive_weight_tying_loss(
        hidden,
        targets,
        table,
        temperature=0.7,
        duplicates=form,  # type: ignore[arg-type]
        log_unigram_V=log_q,
        unique=unique,
    )
    expected = defined(hidden @ table.T / 0.7, targets, *weights(form, pool, log_q))
    assert_same(loss, expected, (hidden, table))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_sampled", [1, 7, V])
def test_sampled_negatives_are_the_definitions(form: str, num_sampled: int) -> None:
    hidden, targets, table, log_q = batch()
    loss = contrastive_weight_tying_loss(
        hidden,
        targets,
        table,
        duplicates=form,  # type: ignore[arg-type]
        num_sampled=num_sampled,
        log_unigram_V=log_q,
        unique=(torch.manual_seed(3), unique_targets(targets))[1],
    )
    torch.manual_seed(3)
    valid = targets[targets != -100]
    if form in ("count", "mask"):
        drawn = torch.multinomial(log_q.exp(), num_sampled, replacement=True)
        weight_V, own = weights(form, torch.cat([valid, drawn]), log_q)
    else:
        wait = -torch.log1p(-torch.rand_like(log_q)) / log_q.exp()
        held = torch.bincount(valid, minlength=V) > 0
        order = [v for v in wait.argsort().tolist() if not held[v]]
        sampled = order[:num_sampled]
        weight_V, own = held.double(), "weight"
        weight_V[sampled] = 1.0
        if form == "logq":
            own = "one"
            times = [float(wait[v]) for v in order] + [math.inf] * (V + 1)
            absent = (1 - log_q.exp()) ** (len(valid) - 1)
            for v in range(V):
                if weight_V[v]:
                    # Without v, the K-th time is the next one's if v itself was among the first K.
                    t = times[num_sampled] if v in sampled else times[num_sampled - 1]
                    weight_V[v] = 1 / (1 - absent[v] * math.exp(-float(log_q[v].exp()) * t))
    expected = defined(hidden @ table.T, targets, weight_V, own)
    assert_same(loss, expected, (hidden, table))


def test_logq_with_the_whole_vocabulary_is_the_full_softmax() -> None:
    hidden, targets, table, log_q = batch()
    loss = contrastive_weight_tying_loss(
        hidden, targets, table, duplicates="logq", num_sampled=V, log_unigram_V=log_q
    )
    assert_same(loss, cross_entropy_loss(hidden, targets, table), (hidden, table))


@pytest.mark.parametrize("num_sampled", [0, 1, 5, 20])
def test_logq_estimates_the_sum_over_the_vocabulary_without_bias(num_sampled: int) -> None:
    """Over random batches that hold a given target, the weighted sum's mean is the full one."""
    log_q = log_unigram(1000 / torch.arange(1, V + 1)).double()
    scores = torch.randn(V, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own, rows, draws = 17, 12, 4000
    torch.manual_seed(0)
    sums = []
    for _ in range(draws):
        others = torch.multinomial(log_q.exp(), rows - 1, replacement=True)
        targets = torch.cat([torch.tensor([own]), others])
        loss = contrastive_weight_tying_loss(
            torch.ones(1, 1, dtype=torch.float64),
            targets[:1],
            scores[:, None],
            duplicates="logq",
            num_sampled=num_sampled,
            log_unigram_V=log_q,
            unique=unique_targets(targets[:1], targets),
        )
        sums.append((loss + scores[own]).exp())
    estimates = torch.stack(sums)
    error = estimates.std() / math.sqrt(draws)
    assert (estimates.mean() - scores.exp().sum()).abs() < 4.0 * error


def test_more_samples_make_the_estimate_better() -> None:
    """A property of the estimator: its spread falls as more of the vocabulary is drawn."""
    log_q = log_unigram(1000 / torch.arange(1, V + 1)).double()
    scores = torch.randn(V, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(6)
    torch.manual_seed(0)
    spread = []
    for num_sampled in (4, 16, 32):
        losses = [
            contrastive_weight_tying_loss(
                torch.ones(6, 1, dtype=torch.float64),
                targets,
                scores,
                duplicates="logq",
                num_sampled=num_sampled,
                log_unigram_V=log_q,
            )
            for _ in range(300)
        ]
        spread.append(float(torch.stack(losses).std()))
    assert spread[0] > spread[1] > spread[2]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, V), st.integers(1, V), st.integers(0, 1000))
def test_sampled_tokens_are_distinct_and_absent(held: int, num_sampled: int, seed: int) -> None:
    torch.manual_seed(seed)
    log_q = log_unigram(1000 / torch.arange(1, V + 1))
    targets = torch.randperm(V)[:held]
    ids, there, beyond, last = sample_absent(unique_targets(targets), num_sampled, log_q)
    taken = ids[there > 0].tolist()
    assert len(taken) == len(set(taken)) == min(num_sampled, V - held)
    assert not set(taken) & set(targets.tolist())
    assert last <= beyond
    assert (beyond == torch.inf) == (num_sampled >= V - held)


def test_rare_tokens_are_as_rare_under_a_bf16_distribution() -> None:
    """With its 256 uniform numbers a token would come at once in 1 of 256 draws, however rare."""
    q = torch.full((V,), 1.0)
    q[-1] = 1e-5
    log_q = (q / q.sum()).log().bfloat16()
    held = unique_targets(torch.zeros(4, dtype=torch.long))
    drawn = torch.cat(
        [candidates(held, "logq", 1, log_q, torch.float32)[0][-1:] for _ in range(3000)]
    )
    assert (drawn == V - 1).sum() <= 1  # 3000 · 1e-5 / V are expected


@pytest.mark.parametrize(
    "objective",
    [
        CrossEntropy(tied=True, unigram_bias="fixed"),
        ContrastiveWeightTying(duplicates="logq"),
        Combined(contrastive=ContrastiveWeightTying(num_sampled=2)),
    ],
)
def test_log_p_keeps_its_digits_in_a_bf16_module(objective: Any) -> None:
    """In bf16 it would err by up to 0.03 nats."""
    count = 1000 // torch.arange(1, V + 1) ** 2
    objective.setup(V, D, 0.02)
    objective.set_unigram(count)
    owner = objective.contrastive if isinstance(objective, Combined) else objective
    for cast in (objective.bfloat16, objective.half, objective.float):
        cast()
        assert torch.equal(owner.log_unigram_V, log_unigram(count))
    objective.double()
    assert owner.log_unigram_V.dtype == torch.float64


def test_a_table_of_the_whole_text_is_cross_entropy_with_the_unigram_bias() -> None:
    """CWT's limit for many negatives (docs/theory.md), exactly, up to the constant."""
    hidden, targets, table, _ = batch(ignored=False)
    count = torch.randint(1, 50, (V,), generator=torch.Generator().manual_seed(0))
    unique = UniqueTargets(torch.arange(V), targets, count)
    loss = contrastive_weight_tying_loss(hidden, targets, table, unique=unique)
    objective = CrossEntropy(tied=True, unigram_bias="fixed")
    objective.setup(V, D, 0.02)
    objective = objective.double()
    objective.set_unigram(count - 1)  # it adds one to each count
    log_p = (count.double() / count.sum()).log()
    objective.log_unigram_V.copy_(log_p)  # set_unigram's own is float32
    constant = log_p[targets].mean() + count.sum().double().log()
    expected = objective(hidden, targets, table).loss + constant
    assert_same(loss, expected, (hidden, table))


def made(**options: Any) -> ContrastiveWeightTying:
    objective = ContrastiveWeightTying(**options)
    objective.setup(V, D, 0.5)
    return objective.double()


def test_a_learned_temperature_learns_and_starts_where_it_was_told() -> None:
    hidden, targets, table, _ = batch()
    objective = made(temperature=0.5, learn_temperature=True)
    output = objective(hidden, targets, table)
    fixed = made(temperature=0.5)(hidden, targets, table)
    torch.testing.assert_close(output.loss, fixed.loss, rtol=1e-6, atol=0)
    assert output.metrics["temperature"] == pytest.approx(0.5)
    output.loss.backward()
    step = 1e-5
    higher, lower = (
        contrastive_weight_tying_loss(hidden, targets, table, temperature=0.5 * math.exp(d))
        for d in (step, -step)
    )
    assert objective.log_temperature.grad.item() == pytest.approx(
        ((higher - lower) / (2 * step)).item(), rel=1e-5
    )


def test_normalize_scores_cosines() -> None:
    hidden, targets, table, log_q = batch()
    loss = made(normalize=True, temperature=0.1)(hidden, targets, table).loss
    cosines = torch.stack(
        [torch.stack([h @ e / (h.norm() * e.norm()) for e in table]) for h in hidden]
    )
    expected = defined(cosines / 0.1, targets, *weights("count", targets, log_q))
    assert_same(loss, expected, (hidden, table))


def test_stop_gradient_spares_the_table_alone() -> None:
    hidden, targets, table, _ = batch()
    plain, stopped = (
        torch.autograd.grad(
            made(stop_gradient=stop)(hidden, targets, table).loss,
            (hidden, table),
            allow_unused=True,
        )
        for stop in (False, True)
    )
    torch.testing.assert_close(plain[0], stopped[0])
    assert plain[1].any()
    assert stopped[1] is None


def test_an_untied_matrix_is_scored_instead_of_the_embeddings() -> None:
    hidden, targets, table, _ = batch()
    objective = made(tied=False)
    loss = objective(hidden, targets, table).loss
    expected = contrastive_weight_tying_loss(hidden, targets, objective.weight_VD)
    assert_same(loss, expected, (hidden, objective.weight_VD))
    assert torch.autograd.grad(
        objective(hidden, targets, table).loss, table, allow_unused=True
    ) == (None,)


def test_combined_is_the_weighted_sum() -> None:
    hidden, targets, table, _ = batch()
    objective = Combined(
        CrossEntropy(tied=True), ContrastiveWeightTying(duplicates="mask"), contrastive_weight=0.3
    )
    expected = cross_entropy_loss(hidden, targets, table) + 0.3 * contrastive_weight_tying_loss(
        hidden, targets, table, duplicates="mask"
    )
    assert_same(objective(hidden, targets, table).loss, expected, (hidden, table))


@pytest.mark.parametrize("negatives", ["accumulated", "global"])
def test_negatives_of_others_are_asked_for_where_they_are_missing(negatives: str) -> None:
    hidden, targets, table, _ = batch()
    objective = made(negatives=negatives)
    with pytest.raises(ValueError, match="unique_targets"):
        objective(hidden, targets, table)
    assert objective.eval()(hidden, targets, table).loss.isfinite()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_sampled", [0, 5])
@pytest.mark.parametrize("kind", ["all ignored", "one row"])
def test_degenerate_batches_are_finite(form: str, num_sampled: int, kind: str) -> None:
    hidden, targets, table, log_q = batch()
    targets.fill_(-100)
    if kind == "one row":
        targets[3] = 7
    loss = contrastive_weight_tying_loss(
        hidden,
        targets,
        table,
        duplicates=form,  # type: ignore[arg-type]
        num_sampled=num_sampled,
        log_unigram_V=log_q,
    )
    gradients = torch.autograd.grad(loss, (hidden, table))
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients)
    if kind == "all ignored":
        assert loss == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"num_sampled": -1},
        {"negatives": "all"},
        {"implementation": "reference", "duplicates": "mask"},
        {"implementation": "reference", "negatives": "global"},
        {"stop_gradient": True, "tied": False},
    ],
)
def test_forms_that_do_not_exist_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ContrastiveWeightTying(**options)


def test_logq_without_a_unigram_distribution_is_refused() -> None:
    hidden, targets, table, _ = batch()
    with pytest.raises(ValueError, match="log_unigram_V"):
        contrastive_weight_tying_loss(hidden, targets, table, duplicates="logq")
