"""Two numbers for a head: against scipy's minimum of a float64 formula."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from headless.downstream.calibration import Calibration, calibrate
from headless.errors import HeadlessError
from headless.objectives import LMHead

V, D, ROWS = 40, 6, 3000


def text_of(scale: float, bias_scale: float, batches: int = 6) -> tuple[LMHead, list]:
    """Targets drawn from scale · scores + bias_scale · bias, in batches of uneven length."""
    generator = torch.Generator().manual_seed(4)
    weight_VD = torch.randn(V, D, generator=generator)
    bias_V = torch.randn(V, generator=generator) * 2
    data = []
    for i in range(batches):
        hidden_ND = torch.randn(ROWS + 7 * i, D, generator=generator)
        logits = scale * hidden_ND @ weight_VD.T + bias_scale * bias_V
        targets_N = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
        data.append((hidden_ND, targets_N))
    return LMHead(weight_VD, bias_V, is_calibrated=True), data


def nll(numbers: np.ndarray, head: LMHead, data: list) -> float:
    """The mean in float64."""
    assert head.bias_V is not None
    total, count = 0.0, 0
    for hidden_ND, targets_N in data:
        scores = hidden_ND.double().numpy() @ head.weight_VD.double().numpy().T
        logits = numbers[0] * scores + numbers[1] * head.bias_V.double().numpy()
        own = logits[np.arange(len(logits)), targets_N.numpy()]
        total += float((logsumexp(logits, axis=1) - own).sum())
        count += len(logits)
    return total / count


@pytest.mark.parametrize(("scale", "bias_scale"), [(1.0, 1.0), (0.6, 1.4), (1.7, 0.5)])
def test_it_finds_the_minimum(scale: float, bias_scale: float) -> None:
    head, data = text_of(scale, bias_scale)
    found = calibrate(head, data)
    best = minimize(nll, np.ones(2), args=(head, data[::2]), method="Nelder-Mead").x
    np.testing.assert_allclose([found.scale, found.bias_scale], best, rtol=2e-3)
    np.testing.assert_allclose(found.scale, scale, rtol=0.05)
    ones, fitted = np.ones(2), np.array([found.scale, found.bias_scale])
    np.testing.assert_allclose(found.nll_before, nll(ones, head, data[1::2]), rtol=1e-5)
    np.testing.assert_allclose(found.nll_after, nll(fitted, head, data[1::2]), rtol=1e-5)
    assert found.fit_tokens + found.report_tokens == sum(len(targets) for _, targets in data)
    if (scale, bias_scale) != (1.0, 1.0):
        assert found.nll_after < found.nll_before - 0.01


def test_a_head_without_a_bias_has_a_temperature_only() -> None:
    head, data = text_of(0.5, 0.0)
    found = calibrate(LMHead(head.weight_VD, None), data)
    assert found.bias_scale == 1.0
    np.testing.assert_allclose(found.scale, 0.5, rtol=0.05)


def test_the_numbers_are_in_the_head() -> None:
    head, data = text_of(1.0, 1.0, batches=2)
    hidden = data[0][0][:5]
    fitted = Calibration(0.5, 2.0).apply(head)
    torch.testing.assert_close(fitted.logits(hidden), 0.5 * head.scores(hidden) + 2.0 * head.bias_V)


def test_what_cannot_be_fitted() -> None:
    head, data = text_of(1.0, 1.0, batches=2)
    with pytest.raises(HeadlessError, match="at least two batches"):
        calibrate(head, data[:1])
    with pytest.raises(HeadlessError, match="without --fit"):
        calibrate(head._replace(own_excess_V=torch.ones(V)), data)


def test_a_soft_cap_is_scaled_with_the_scores() -> None:
    head, data = text_of(1.0, 1.0, batches=1)
    head = head._replace(softcap=2.0)
    hidden_ND = data[0][0]
    found = Calibration(0.6, 1.4).apply(head).logits(hidden_ND)
    wanted = 0.6 * 2.0 * torch.tanh(hidden_ND @ head.weight_VD.T / 2.0) + 1.4 * head.bias_V
    torch.testing.assert_close(found, wanted)
