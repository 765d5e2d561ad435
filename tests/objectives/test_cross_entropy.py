"""Cross-entropy against torch's own on logits in float64."""

import collections

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from headless.objectives import Combined, ContrastiveWeightTying, CrossEntropy, cross_entropy_loss
from headless.objectives.cross_entropy import _rows_of_a_chunk

N, D, V = 30, 8, 20


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64)
    table = torch.randn(V, D, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, V, (N,), generator=generator)
    targets[4:9] = -100
    return hidden.requires_grad_(), targets, table.requires_grad_()


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 64])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_value_and_gradients(rows, chunk_size, z_loss, label_smoothing, softcap) -> None:
    hidden, targets, table = rows
    bias = torch.randn(V, dtype=torch.float64, requires_grad=True)
    loss = cross_entropy_loss(
        hidden,
        targets,
        table,
        bias,
        chunk_size=chunk_size,
        z_loss=z_loss,
        label_smoothing=label_smoothing,
        softcap=softcap,
    )
    logits = hidden @ table.T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits + bias
    valid = targets != -100
    expected = F.cross_entropy(logits[valid], targets[valid], label_smoothing=label_smoothing)
    expected = expected + z_loss * logits[valid].logsumexp(-1).square().mean()
    gradients = torch.autograd.grad(loss, (hidden, table, bias))
    expected_gradients = torch.autograd.grad(expected, (hidden, table, bias))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize(
    ("rows", "limit", "chunk"),
    [(32768, 5336, 4736), (300, 200, 128), (30, 7, 6), (1000, 130, 128), (256, 128, 128)],
)
def test_chunks_are_whole_tiles_within_the_limit(rows, limit, chunk) -> None:
    assert _rows_of_a_chunk(rows, limit) == chunk


@pytest.mark.parametrize("compiled", [False, True])
def test_chunks_of_tiles_with_a_smaller_last_one(compiled) -> None:
    """The sums go through an operator of their own, and when compiled through no scatter."""
    operators = collections.Counter()

    def look(graph, inputs):
        operators.update(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, D, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(V, D, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, V, (300,), generator=generator)
    targets[::9] = -100
    options = {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 3.0}
    loss = cross_entropy_loss
    if compiled:
        loss = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=look))
    found = loss(hidden, targets, table, chunk_size=200, **options)
    whole = cross_entropy_loss(hidden, targets, table, chunk_size=None, **options)
    torch.testing.assert_close(found, whole)
    gradients = [torch.autograd.grad(x, (hidden, table)) for x in (found, whole)]
    torch.testing.assert_close(*gradients)
    sums = [name for name in operators.elements() if "auto_functionalized" in name]
    assert len(sums) == 3 * compiled
    assert not [name for name in operators if "scatter" in name]


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("unigram_bias", ["none", "fixed", "initial"])
def test_its_head_is_what_it_scores_with(rows, chunk_size, tied, unigram_bias) -> None:
    """The loss is that of the head's logits, by formula; T and the bias learn where they should."""
    hidden, targets, table = rows
    objective = CrossEntropy(
        tied=tied,
        unigram_bias=unigram_bias,
        temperature=0.7,
        learn_temperature=True,
        softcap=3.0,
        chunk_size=chunk_size,
    )
    objective.setup(V, D, 1.0)
    counts = torch.arange(V)
    objective.double().set_unigram(counts)
    scored = table if tied else objective.weight_VD
    log_q = ((counts + 1.0).double() / (counts + 1.0).double().sum()).log()
    logits = 3.0 * torch.tanh(hidden @ scored.T / 0.7 / 3.0)
    if unigram_bias != "none":
        logits = logits + log_q
    head = objective.lm_head(table, counts)
    torch.testing.assert_close(head.logits(hidden), logits, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(head.scores(hidden), 3.0 * torch.tanh(hidden @ scored.T / 2.1))
    loss = objective(hidden, targets, table).loss
    expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    names = {"log_temperature", *([] if tied else ["weight_VD"])}
    names |= {"bias_V"} if unigram_bias == "initial" else set()
    assert {n for n, p in objective.named_parameters() if p.grad.abs().sum() > 0} == names


@pytest.mark.parametrize("tied", [True, False])
def test_mu_centering_keeps_the_softmax_and_plain_descent_keeps_the_mean(rows, tied) -> None:
    hidden, targets, table = rows
    objective = CrossEntropy(tied=tied, mu_centering=True, unigram_bias="initial")
    objective.setup(V, D, 1.0)
    objective.double()
    scored = table if tied else objective.weight_VD
    output = objective(hidden, targets, table)
    output.loss.backward()
    torch.testing.assert_close(scored.grad.sum(dim=0), torch.zeros(D).double())
    before = scored.detach().clone()
    with torch.no_grad():
        objective.after_step(table)
    torch.testing.assert_close(scored.detach(), before - before.mean(dim=0))
    torch.testing.assert_close(objective(hidden, targets, table).loss, output.loss)


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_row_counts(chunk_size, dtype) -> None:
    hidden = (torch.randn(N, D) * 1e4).to(dtype).requires_grad_()
    table = torch.randn(V, D).to(dtype).requires_grad_()
    loss = cross_entropy_loss(
        hidden, torch.full((N,), -100), table, chunk_size=chunk_size, z_loss=1
    )
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not table.grad.any()


def test_untied_owns_a_head_and_tied_does_not() -> None:
    untied, tied = CrossEntropy(), CrossEntropy(tied=True)
    for objective in (untied, tied):
        objective.setup(V, D, 0.02)
    assert [p.shape for p in untied.parameters()] == [(V, D)]
    assert not list(tied.parameters())
    table = torch.randn(V, D)
    assert tied.lm_head(table, torch.ones(V)).weight_VD is table
    assert untied.lm_head(table, torch.ones(V)).weight_VD is untied.weight_VD
    assert 0.01 < untied.weight_VD.std() < 0.03


def test_combined_is_the_weighted_sum(rows) -> None:
    hidden, targets, table = rows
    cross_entropy, contrastive = CrossEntropy(tied=True), ContrastiveWeightTying(temperature=0.5)
    both = Combined(cross_entropy, contrastive, contrastive_weight=0.3)
    output = both(hidden, targets, table)
    parts = [part(hidden, targets, table).loss for part in (cross_entropy, contrastive)]
    torch.testing.assert_close(output.loss, parts[0] + 0.3 * parts[1])
    torch.testing.assert_close(output.metrics["loss_cross_entropy"], parts[0])
    torch.testing.assert_close(output.metrics["loss_contrastive"], parts[1])
    assert both.lm_head(table, torch.ones(V)).weight_VD is table


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 1.0},
        {"z_loss": -1.0},
        {"chunk_size": 0},
        {"softcap": 0.0},
        {"temperature": 0.0},
    ],
)
def test_bad_options_are_refused(options) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        CrossEntropy(**options)
