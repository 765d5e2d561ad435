"""Gaussianity and covariance spectra of states whose distribution is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted import claim, draw_all, gather, gaussian, states_lab, stream
from scipy import stats

from headless.analysis.shape.distributions import activations
from headless.analysis.shape.spread import correlation_eigenvalues, covariance_spectra


def test_a_gaussian_is_one(tmp_path: Path) -> None:
    finding = activations(states_lab(stream([gaussian(seed=s) for s in range(3)])))
    for block in range(3):
        key = f"activations/post/{block:02d}"
        for view in ("pooled", "median_dimension", "directions"):
            assert finding.scalars[f"{key}/kurtosis/{view}"] == pytest.approx(0, abs=0.2)
        assert finding.scalars[f"{key}/gaussian_distance/dimensions"] < 0.02
    assert claim(finding, "nearly Gaussian")
    assert not claim(finding, "extreme outliers")
    assert not claim(finding, "tails are heavier")
    draw_all(finding, tmp_path)


def test_an_outlier_dimension_is_pooled_kurtosis_only() -> None:
    """Each dimension a Gaussian of another size: the mixture has tails, the dimensions have not."""
    x = gaussian()
    x[..., 3] *= 40
    finding = activations(states_lab(stream([x, x])))
    key = "activations/post/00"
    pooled = x[:, 1:].numpy().ravel()
    assert finding.scalars[f"{key}/kurtosis/pooled"] == pytest.approx(stats.kurtosis(pooled), 1e-6)
    assert finding.scalars[f"{key}/kurtosis/pooled"] > 50
    assert abs(finding.scalars[f"{key}/kurtosis/median_dimension"]) < 0.2
    assert finding.scalars[f"{key}/gaussian_distance/dimensions"] < 0.02
    assert finding.scalars[f"{key}/gaussian_distance/pooled"] > 0.1
    assert claim(finding, "nearly Gaussian")
    assert claim(finding, "extreme outliers")


def test_laplace_dimensions_are_found() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.laplace(size=(60, 33, 32)))
    finding = activations(states_lab(stream([x])))
    assert "laplace after 1 of 1" in finding.answer
    assert not claim(finding, "nearly Gaussian")
    assert claim(finding, "tails are heavier")
    assert finding.scalars["activations/post/00/kurtosis/median_dimension"] == pytest.approx(
        3, abs=1
    )
    # sums over many independent dimensions are nearly Gaussian: the null
    assert finding.scalars["activations/post/00/kurtosis/directions"] < 0.3


def with_spectrum(exponent: float, scale: float = 1.0, width: int = 48) -> torch.Tensor:
    x = gaussian(400, 33, width) * scale
    x = x * torch.arange(1, width + 1, dtype=torch.float64) ** (-exponent / 2)
    turn, _ = torch.linalg.qr(gaussian(1, width, width)[0])
    return x @ turn


@pytest.mark.parametrize("exponent", [0.7, 1.3])
def test_a_planted_power_law(exponent: float, tmp_path: Path) -> None:
    statistics = stream([with_spectrum(exponent, scale) for scale in (1.0, 1.5, 2.0)])
    finding = covariance_spectra(states_lab(statistics))
    for block in range(3):
        key = f"covariance_spectra/post/{block:02d}"
        assert finding.scalars[f"{key}/exponent"] == pytest.approx(exponent, abs=0.06)
        assert finding.scalars[f"{key}/r_squared"] > 0.99
    assert claim(finding, "power-law spectrum")
    assert claim(finding, "spectra increase")
    law = torch.arange(1, 49, dtype=torch.float64) ** -exponent
    wanted = float(law.sum() ** 2 / law.square().sum())
    assert finding.scalars["covariance_spectra/post/00/participation"] == pytest.approx(
        wanted, 0.05
    )
    if exponent < 1:
        draw_all(finding, tmp_path)


def test_the_null_is_met_by_independent_dimensions() -> None:
    x = gaussian(400) * torch.linspace(0.5, 3, 32, dtype=torch.float64)
    finding = covariance_spectra(states_lab(stream([x])))
    np.testing.assert_allclose(
        finding.arrays["post/00/eigenvalues"], finding.arrays["post/00/null"], rtol=0.1
    )
    turned = covariance_spectra(states_lab(stream([with_spectrum(1.3)])))
    assert turned.arrays["post/00/eigenvalues"][0] > 3 * turned.arrays["post/00/null"][0]


def test_correlations_do_not_see_the_scale_of_a_dimension() -> None:
    x = with_spectrum(1.0)
    plain = correlation_eigenvalues(gather(x))
    x[..., 5] *= 1000
    torch.testing.assert_close(correlation_eigenvalues(gather(x)), plain, rtol=1e-6, atol=1e-8)
    wanted = np.linalg.eigvalsh(np.corrcoef(x[:, 1:].flatten(0, 1).numpy().T))[::-1]
    np.testing.assert_allclose(plain, wanted, rtol=1e-5)
    x[..., 7] = 2.0  # a dimension that does not vary
    assert len(correlation_eigenvalues(gather(x))) == 47
