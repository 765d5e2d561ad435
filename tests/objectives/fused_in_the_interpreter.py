"""The fused loss in Triton's interpreter: test_fused.py runs this file, TRITON_INTERPRET=1."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headless.objectives import (
    ContrastiveWeightTying,
    UniqueTargets,
    contrastive_weight_tying_loss,
    fused,
    log_unigram,
    unique_targets,
)

N, V, D = 40, 40, 20  # two blocks of rows, two tiles of candidates (the second ragged), two of D


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fused.INTERPRETED
    monkeypatch.setattr(fused, "rows_of_a_block", lambda n, m: 32)


def batch(
    dtype: torch.dtype = torch.float64, scale: float = 1.0, shift: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, targets with copies and ignored rows, a table; scores of `scale` + `shift`."""
    hidden, table = torch.randn(N, D) * scale / D**0.5, torch.randn(V, D)
    hidden[:, 0], table[:, 0] = shift, 1.0
    targets = torch.randint(0, V, (N,))
    targets[::7] = -100
    return hidden.to(dtype).requires_grad_(), targets, table.to(dtype).requires_grad_()


def padded(unique: UniqueTargets, size: int) -> UniqueTargets:
    more = size - len(unique.ids_M)
    ids, counts = (torch.cat([x, x.new_zeros(more)]) for x in (unique.ids_M, unique.count_M))
    return UniqueTargets(ids, unique.inverse_N, counts)


def results(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return loss.detach(), *torch.autograd.grad(loss, leaves)


def assert_close(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], tolerance: float) -> None:
    """Normwise, as errors of products are."""
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).norm() <= tolerance * b.norm() + 1e-300


@pytest.mark.parametrize("form", ["count", "mask", "unique", "logq"])
@pytest.mark.parametrize("more", [False, True], ids=["", "other rows, padded, sampled"])
def test_value_and_gradients_of_every_form(form: str, more: bool) -> None:
    hidden, targets, table = batch()
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    unique = unique_targets(targets, torch.cat([targets, torch.arange(9)]) if more else None)
    assert 16 < len(unique.ids_M) < 32
    if more:
        unique = padded(unique, 64)  # two tiles hold nothing else
    found, wanted = (
        results(
            contrastive_weight_tying_loss(
                hidden,
                targets,
                table,
                temperature=temperature,
                duplicates=form,  # type: ignore[arg-type]
                num_sampled=(torch.manual_seed(3), 5 * more)[1],
                log_unigram_V=log_unigram(torch.arange(V)).double(),
                implementation=implementation,  # type: ignore[arg-type]
                unique=unique,
            ),
            *(hidden, table, temperature),
        )
        for implementation in ("fused", "deduplicated")
    )
    assert_close(found, wanted, 1e-13)
    assert not torch.equal(found[1], wanted[1])  # it was not the same computation


def test_value_and_gradients_are_the_papers() -> None:
    hidden, targets, table = batch()
    found, paper = (
        results(
            contrastive_weight_tying_loss(hidden, targets, table, implementation=name),  # type: ignore[arg-type]
            *(hidden, table),
        )
        for name in ("fused", "reference")
    )
    assert_close(found, paper, 1e-13)


def exact(hidden: Tensor, targets: Tensor, table: Tensor) -> tuple[Tensor, ...]:
    """The deduplicated form of the same numbers in float64."""
    leaves = [x.detach().double().requires_grad_() for x in (hidden, table)]
    return results(contrastive_weight_tying_loss(leaves[0], targets, leaves[1]), *leaves)


@pytest.mark.parametrize("shift", [0.0, -150.0, 150.0])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_scores_beyond_the_range_of_exp(scale: float, shift: float) -> None:
    hidden, targets, table = batch(torch.float32, scale, shift)
    unique = padded(unique_targets(targets), 64)
    loss = contrastive_weight_tying_loss(
        hidden, targets, table, unique=unique, implementation="fused"
    )
    # A score of some hundred is known to some hundred units in the last place.
    assert_close(results(loss, hidden, table), exact(hidden, targets, table), 1e-4)


def test_bf16_rounds_three_times_and_the_loss_never() -> None:
    hidden, targets, table = batch(torch.bfloat16, 5.0)
    loss = contrastive_weight_tying_loss(hidden, targets, table, implementation="fused")
    found, wanted = results(loss, hidden, table), exact(hidden, targets, table)
    assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert_close(found[:1], wanted[:1], 1e-6)
    # exp, its product with the table, and that over Z; exp, h over Z, and the sum of products:
    # 2^-8 of what is rounded at most, each time. Their sums of positive terms do not cancel much.
    assert_close(found[1:], wanted[1:], 3 * 2**-8)


def test_autocast_rounds_no_gradient_of_the_table() -> None:
    hidden, targets, table = batch(torch.float32)
    targets = targets.clamp(min=0)
    targets[:8] = -100  # 32 rows count: the mean divides without rounding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_weight_tying_loss(hidden, targets, table, implementation="fused")
    _, d_hidden, d_table = results(loss, hidden, table)
    assert d_hidden.dtype == d_table.dtype == torch.float32
    assert torch.equal(d_hidden, d_hidden.bfloat16().float())  # of what autocast made of it
    assert not torch.equal(d_table, d_table.bfloat16().float())
    rounded = [x.bfloat16() for x in (hidden, table)]
    torch.testing.assert_close(loss, exact(rounded[0], targets, rounded[1])[0].float())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_no_row_counts(dtype: torch.dtype) -> None:
    hidden, targets, table = batch(dtype)
    loss = contrastive_weight_tying_loss(
        hidden, torch.full_like(targets, -100), table, implementation="fused"
    )
    assert all((x == 0).all() for x in results(loss, hidden, table))


class Sizes(TorchDispatchMode):
    """Bytes of the largest tensor that any operator made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("gradients", [False, True])
def test_all_scores_never_exist(gradients: bool) -> None:
    rows, m = 70, 37
    with Sizes() as sizes:
        fused._losses_and_gradients(
            torch.randn(rows, 16),
            torch.randn(m, 16),
            torch.arange(rows) % m,
            torch.zeros(m),
            False,
            gradients,
            gradients,
        )
    numbers = 32 * 48 if gradients else rows * 16  # a block's scores, or the hidden states
    assert sizes.largest == 4 * numbers < 4 * rows * m


def test_only_wanted_gradients_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, targets, table = batch()
    made = []
    operator = fused._contrastive

    def spy(*arguments: object) -> tuple[Tensor, ...]:
        made.append([len(x) for x in operator(*arguments)[1:]])
        return operator(*arguments)

    monkeypatch.setattr(fused, "_contrastive", spy)
    m = len(unique_targets(targets).ids_M)

    def loss(**options: bool) -> Tensor:
        return contrastive_weight_tying_loss(
            hidden, targets, table, implementation="fused", **options
        )

    whole, detached = loss(), loss(stop_gradient=True)
    with torch.no_grad():
        blind = loss()
    assert made == [[N, N, m], [N, N, 0], [0, 0, 0]]
    assert whole == detached == blind
    assert torch.equal(
        torch.autograd.grad(whole, hidden)[0], torch.autograd.grad(detached, hidden)[0]
    )


def test_backward_twice_but_no_second_derivative() -> None:
    hidden, targets, table = batch()
    loss = contrastive_weight_tying_loss(hidden, targets, table, implementation="fused")
    first, again = (
        torch.autograd.grad(k * loss, (hidden, table), retain_graph=True) for k in (1.0, 2.0)
    )
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(2 * a, b)
    weight = torch.ones((), requires_grad=True)
    (d_hidden,) = torch.autograd.grad(weight * loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        d_hidden.sum().backward()


def test_compiled_it_is_one_graph_for_every_m() -> None:
    objective = ContrastiveWeightTying(
        learn_temperature=True, normalize=True, tied=False, implementation="fused"
    )
    objective.setup(V, D, 0.5)
    graphs: list[object] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        from torch._dynamo.backends.debugging import aot_eager

        graphs.append(module)
        return aot_eager(module, inputs)

    compiled = torch.compile(lambda *x: objective(*x).loss, fullgraph=True, backend=backend)
    for size in (48, 64, 80):
        hidden, targets, table = batch(torch.float32)
        unique = padded(unique_targets(targets), size)
        torch._dynamo.maybe_mark_dynamic(unique.ids_M, 0)
        torch._dynamo.maybe_mark_dynamic(unique.count_M, 0)
        leaves = (hidden, objective.weight_VD, objective.log_temperature)
        found, wanted = (
            results(function(hidden, targets, table, unique), *leaves)
            for function in (compiled, lambda *x: objective(*x).loss)
        )
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)
    assert len(graphs) == 1
