"""The contrastive objective against the paper's N x N loss, written out as a loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from headless.objectives import (
    ContrastiveWeightTying,
    UniqueTargets,
    contrastive_weight_tying_loss,
    log_unigram,
    unique_targets,
)

V, D = 40, 8


def looped_loss(hidden: Tensor, targets: Tensor, embedding: Tensor, temperature: float) -> Tensor:
    """Godey et al. 2024, Fig. 9, one row and one denominator term at a time."""
    rows = [i for i, target in enumerate(targets.tolist()) if target != -100]
    losses = []
    for i in rows:
        scores = [hidden[i] @ embedding[targets[j]] / temperature for j in rows]
        own = hidden[i] @ embedding[targets[i]] / temperature
        losses.append(torch.stack(scores).logsumexp(0) - own)
    return torch.stack(losses).mean() if losses else hidden.sum() * 0.0


def batch(
    kind: str, dtype: torch.dtype = torch.float64, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    hidden = torch.randn(48, D, generator=generator, dtype=torch.float64) * scale
    embedding = torch.randn(V, D, generator=generator, dtype=torch.float64) * scale
    targets = {
        "few types": torch.randint(0, 3, (48,), generator=generator),
        "many types": torch.randint(0, V, (48,), generator=generator),
        "one type": torch.full((48,), 5),
        "some ignored": torch.randint(0, 9, (48,), generator=generator),
        "one row": torch.full((48,), -100),
        "all ignored": torch.full((48,), -100),
    }[kind]
    if kind == "some ignored":
        targets[::3] = -100
    if kind == "one row":
        targets[11] = 4
    return (
        hidden.to(dtype).requires_grad_(),
        targets,
        embedding.to(dtype).requires_grad_(),
    )


KINDS = ["few types", "many types", "one type", "some ignored", "one row", "all ignored"]


def padded(unique: UniqueTargets, size: int = 64) -> UniqueTargets:
    extra = size - len(unique.ids_M)
    return UniqueTargets(
        torch.cat([unique.ids_M, unique.ids_M.new_zeros(extra)]),
        unique.inverse_N,
        torch.cat([unique.count_M, unique.count_M.new_zeros(extra)]),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("form", ["deduplicated", "padded", "reference"])
def test_value_and_gradients_are_the_papers(kind: str, temperature: float, form: str) -> None:
    hidden, targets, embedding = batch(kind)
    expected = looped_loss(hidden, targets, embedding, temperature)
    expected_gradients = torch.autograd.grad(
        expected, (hidden, embedding), allow_unused=True, materialize_grads=True
    )
    loss = contrastive_weight_tying_loss(
        hidden,
        targets,
        embedding,
        temperature=temperature,
        implementation="reference" if form == "reference" else "deduplicated",
        unique=padded(unique_targets(targets)) if form == "padded" else None,
    )
    gradients = torch.autograd.grad(loss, (hidden, embedding))
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)], ids=["f32", "bf16"]
)
def test_implementations_agree_to_the_dtypes_accuracy(
    kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    hidden, targets, embedding = batch(kind, dtype)
    results = []
    for implementation in ("deduplicated", "reference"):
        loss = contrastive_weight_tying_loss(
            hidden, targets, embedding, implementation=implementation
        )
        assert loss.dtype == torch.float32
        results.append((loss, *torch.autograd.grad(loss, (hidden, embedding))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("implementation", ["deduplicated", "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_ten_thousand_stay_finite(
    implementation: str, dtype: torch.dtype, kind: str
) -> None:
    hidden, targets, embedding = batch(kind, dtype, scale=math.sqrt(1e4 / math.sqrt(D)))
    assert (hidden @ embedding.T).abs().max() > 1e4
    loss = contrastive_weight_tying_loss(hidden, targets, embedding, implementation=implementation)
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad.isfinite().all()
    assert embedding.grad.isfinite().all()
    if kind == "all ignored":
        assert loss == 0.0
        assert not hidden.grad.any()
        assert not embedding.grad.any()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from([-100, 0, 1, 2, 17, V - 1]), min_size=1, max_size=24),
    st.floats(0.1, 10.0),
)
def test_any_targets_give_the_papers_loss(targets: list[int], temperature: float) -> None:
    generator = torch.Generator().manual_seed(len(targets))
    hidden = torch.randn(len(targets), D, generator=generator, dtype=torch.float64)
    embedding = torch.randn(V, D, generator=generator, dtype=torch.float64)
    labels = torch.tensor(targets)
    loss = contrastive_weight_tying_loss(hidden, labels, embedding, temperature=temperature)
    torch.testing.assert_close(
        loss, looped_loss(hidden, labels, embedding, temperature), rtol=1e-10, atol=1e-10
    )


def test_the_calibrated_head_recovers_a_known_conditional_distribution() -> None:
    """A table of contexts with known p(v|c): the optimum of CWT plus log p(v) is that table.

    The batch holds each pair (context, token) in exact proportion, so that its optimum is known.
    """
    generator = torch.Generator().manual_seed(0)
    contexts, tokens = 6, 12
    weights = torch.arange(1, tokens + 1, dtype=torch.float64) ** -1.0  # Zipf
    affinity = torch.exp(torch.randn(contexts, tokens, generator=generator, dtype=torch.float64))
    counts = (weights * affinity * 60).round().long() + 1
    context, target = (
        torch.tensor(column)
        for column in zip(
            *(
                (c, v)
                for c in range(contexts)
                for v in range(tokens)
                for _ in range(int(counts[c, v]))
            ),
            strict=True,
        )
    )
    conditional = counts.double() / counts.sum(dim=1, keepdim=True)
    floor = -conditional[context, target].log().mean()

    temperature = 0.5
    hidden = torch.randn(contexts, tokens, generator=generator, dtype=torch.float64) * 0.1
    embedding = torch.randn(tokens, tokens, generator=generator, dtype=torch.float64) * 0.1
    hidden.requires_grad_()
    embedding.requires_grad_()
    objective = ContrastiveWeightTying(temperature=temperature)
    optimizer = torch.optim.LBFGS(
        [hidden, embedding], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(hidden[context], target, embedding).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    head = objective.lm_head(embedding, counts.sum(dim=0))
    scores = (hidden @ head.weight_VD.T).detach()
    calibrated = (scores + head.bias_V).log_softmax(dim=-1)
    bare = scores.log_softmax(dim=-1)
    nll, nll_bare = (-table[context, target].mean() for table in (calibrated, bare))
    # log_unigram smooths the counts by one, which the exact bias would not: hence 1e-2 and 1e-4.
    torch.testing.assert_close(calibrated.exp(), conditional, rtol=0, atol=1e-2)
    assert nll - floor < 1e-4
    assert nll_bare - floor > 0.1


def test_log_unigram_is_a_distribution_with_no_zero() -> None:
    counts = torch.tensor([0, 1, 7, 92])
    expected = torch.log((counts + 1) / 104)
    torch.testing.assert_close(log_unigram(counts), expected)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"temperature": -1.0}, {"duplicates": "x"}, {"implementation": "fast"}],
)
def test_unknown_forms_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ContrastiveWeightTying(**options)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_temperature_of_one_costs_nothing(temperature: float) -> None:
    class Divisions(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket is torch.ops.aten.div and args[0].numel() > 1:
                self.found += 1
            return func(*args, **(kwargs or {}))

    hidden, targets, embedding = batch("many types")
    with Divisions() as divisions:
        contrastive_weight_tying_loss(hidden, targets, embedding, temperature=temperature)
    assert divisions.found == (temperature != 1.0)
