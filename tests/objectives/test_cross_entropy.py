"""Cross-entropy against torch's own on logits in float64."""

import pytest
import torch
import torch.nn.functional as F

from headless.objectives import Combined, ContrastiveWeightTying, CrossEntropy, cross_entropy_loss

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
def test_value_and_gradients(rows, chunk_size, z_loss, label_smoothing) -> None:
    hidden, targets, table = rows
    loss = cross_entropy_loss(
        hidden,
        targets,
        table,
        chunk_size=chunk_size,
        z_loss=z_loss,
        label_smoothing=label_smoothing,
    )
    logits = hidden @ table.T
    valid = targets != -100
    expected = F.cross_entropy(logits[valid], targets[valid], label_smoothing=label_smoothing)
    expected = expected + z_loss * logits[valid].logsumexp(-1).square().mean()
    gradients = torch.autograd.grad(loss, (hidden, table))
    expected_gradients = torch.autograd.grad(expected, (hidden, table))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients, expected_gradients)


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


@pytest.mark.parametrize("options", [{"label_smoothing": 1.0}, {"z_loss": -1.0}, {"chunk_size": 0}])
def test_bad_options_are_refused(options) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        CrossEntropy(**options)
