"""The same tensors through the libraries that others use: the same numbers, or a stated relation.

scikit-learn and scipy always; powerlaw and WeightWatcher come with the `dev` extra.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import gather, gaussian
from scipy import stats
from torch import Tensor

from headless.analysis.states import moments
from headless.geometry import (
    MarchenkoPastur,
    anisotropy,
    compare_with_noise,
    effective_rank,
    fit_distributions,
    gaussian_distance,
    principal_axes,
    rank_law,
    ranks_of,
    singular_spectrum,
    tail_law,
)
from headless.geometry import moments as moments_of

WIDE = {"alpha": [1, 20]}  # powerlaw 2.0.0 keeps α below 3 where it is not told otherwise


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """These libraries print and warn, and WeightWatcher changes the filters of warnings."""
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        yield


def peer(name: str) -> Any:
    with quietly():
        return pytest.importorskip(name, reason=f"pip install -e '.[dev]' brings {name}")


def correlated(sequences: int = 40, width: int = 24) -> Tensor:
    turn = gaussian(1, width, width, seed=3)[0]
    return gaussian(sequences, 33, width) @ (turn * torch.linspace(0.2, 3, width)) + 2


def test_principal_components_are_scikit_learns() -> None:
    """Streamed and whole; scikit-learn divides by n - 1, the accumulator by n."""
    from sklearn.decomposition import PCA

    x = correlated()
    rows = x[:, 1:].flatten(0, 1)
    n = len(rows)
    pca = PCA(svd_solver="full").fit(rows.numpy())
    s = gather(x)
    np.testing.assert_allclose(
        moments.eigenvalues(s) * n / (n - 1), pca.explained_variance_, rtol=1e-9, atol=1e-9
    )
    vectors = torch.linalg.eigh(moments.covariance(s)).eigenvectors.flip(1)
    cosines = np.abs(np.sum(vectors.numpy().T * pca.components_, axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-9)
    axes = principal_axes(rows, 6)
    np.testing.assert_allclose(axes.shares_K, pca.explained_variance_ratio_[:6], rtol=1e-9)
    np.testing.assert_allclose(
        np.abs(axes(rows).numpy()), np.abs(pca.transform(rows.numpy())[:, :6]), atol=1e-8
    )


def test_mean_cosines_are_scikit_learns() -> None:
    from sklearn.metrics.pairwise import cosine_similarity

    x = correlated(12)
    rows = x[:, 1:].flatten(0, 1)
    similar = cosine_similarity(rows.numpy())
    n = len(rows)
    wanted = (similar.sum() - n) / (n * (n - 1))
    assert float(anisotropy(rows)) == pytest.approx(wanted, abs=1e-12)
    assert moments.mean_cosine(gather(x)) == pytest.approx(wanted, abs=1e-12)


def test_moments_are_scipys() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_t(7, (40, 33, 6)) * 3 + 100)
    rows = x[:, 1:].flatten(0, 1).numpy()
    s = gather(x)
    np.testing.assert_allclose(moments.excess_kurtosis(s), stats.kurtosis(rows), rtol=1e-5)
    assert moments.pooled_excess_kurtosis(s) == pytest.approx(stats.kurtosis(rows, None), rel=1e-5)
    whole = moments_of(torch.from_numpy(rows))
    assert whole.excess_kurtosis == pytest.approx(stats.kurtosis(rows, None))
    assert whole.skew == pytest.approx(stats.skew(rows, None))
    values = rows.ravel()
    wanted = stats.kstest(values, "norm", (values.mean(), values.std())).statistic
    assert gaussian_distance(torch.from_numpy(values)) == pytest.approx(wanted, abs=1e-12)


def test_fits_are_scipys() -> None:
    values = np.random.default_rng(1).standard_t(4, 3000) * 2 + 1
    fits = fit_distributions(torch.from_numpy(values))
    laws = {"gaussian": stats.norm, "logistic": stats.logistic, "laplace": stats.laplace}
    for name, law in (laws | {"student_t": stats.t}).items():
        parameters = law.fit(values)
        *shape, location, scale = parameters
        ours = fits[name]
        assert ours.location == pytest.approx(location, abs=0.01), name
        assert ours.scale == pytest.approx(scale, rel=0.01), name
        assert ours.nu == pytest.approx(shape[0] if shape else np.inf, rel=0.02), name
        likelihood = float(law.logpdf(values, *parameters).mean())
        assert ours.log_likelihood == pytest.approx(likelihood, abs=1e-6), name


def test_ranks_are_scipys_entropies() -> None:
    x = correlated()[:, 1:].flatten(0, 1)
    sigma = np.linalg.svd(x.numpy() - x.numpy().mean(axis=0), compute_uv=False)
    ranks = ranks_of(torch.from_numpy(sigma))
    assert ranks.effective == pytest.approx(np.exp(stats.entropy(sigma)))
    assert ranks.effective == pytest.approx(float(effective_rank(x)), rel=1e-7)
    assert ranks.entropy == pytest.approx(np.exp(stats.entropy(sigma**2)))
    assert ranks.missing == pytest.approx(
        stats.entropy(sigma / sigma.sum(), np.full(len(sigma), 1 / len(sigma)))
    )


def pareto(alpha: float, count: int = 400, seed: int = 0) -> np.ndarray:
    return (1 - np.random.default_rng(seed).random(count)) ** (-1 / (alpha - 1))


def one_sided(values: np.ndarray, x_min: float, alpha: float) -> float:
    """What powerlaw and WeightWatcher minimise: the largest gap below each step of the tail's
    distribution. Ours is Kolmogorov and Smirnov's, which looks above each step, too."""
    tail = np.sort(values[values >= x_min])
    law = 1 - (tail / x_min) ** (1 - alpha)
    return float(np.abs(np.arange(len(tail)) / len(tail) - law).max())


@pytest.mark.parametrize("alpha", [1.8, 2.5, 3.5, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_tail_exponents_are_powerlaws(alpha: float, seed: int) -> None:
    powerlaw = peer("powerlaw")
    values = pareto(alpha, seed=seed)
    ours = tail_law(torch.from_numpy(values))
    with quietly():
        free = powerlaw.Fit(values, verbose=0, parameter_ranges=WIDE)
        same = powerlaw.Fit(values, xmin=ours.x_min * (1 - 1e-12), parameter_ranges=WIDE, verbose=0)
        exponential = same.distribution_compare("power_law", "exponential")
    # At one beginning of the tail: the same exponent, its error and the comparison.
    assert same.n_tail == ours.count
    assert same.power_law.alpha == pytest.approx(ours.alpha, rel=1e-6)
    assert same.power_law.standard_err == pytest.approx(ours.standard_error, rel=1e-6)
    # It searches for the exponential's rate; ours is the mean's reciprocal.
    assert exponential[0] == pytest.approx(ours.exponential, rel=1e-3)
    inside = values[values >= ours.x_min * (1 - 1e-12)]
    exact = stats.kstest(inside, lambda x: 1 - (x / ours.x_min) ** (1 - ours.alpha))
    assert ours.distance == pytest.approx(exact.statistic, abs=1e-9)
    # Where the tail begins differs by the distance that is smallest: each wins by its own.
    assert free.D == pytest.approx(one_sided(values, free.xmin, free.alpha), abs=1e-6)
    assert free.D <= one_sided(values, ours.x_min, ours.alpha) + 1e-6
    both = stats.kstest(
        values[values >= free.xmin], lambda x: 1 - (x / free.xmin) ** (1 - free.alpha)
    )
    assert ours.distance <= both.statistic + 1e-6
    assert ours.distance == pytest.approx(free.D, abs=1 / ours.count + 1e-6)
    assert abs(ours.alpha - free.alpha) < ours.standard_error * 1.5
    assert abs(ours.alpha - alpha) < 3.5 * ours.standard_error


@pytest.fixture(scope="module")
def gpt2() -> Any:
    """Tiny, with heavy-tailed spectra; 211 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=48,
        n_layer=2,
        n_head=2,
        vocab_size=211,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_((0.7 * torch.randn(len(parameter), 1)).exp())
    return model


@pytest.fixture
def watcher(gpt2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """On a GPU it goes through 16-bit numbers; on a CPU it is as exact as it can be.

    It stays in its own directory, for it draws where it stands.
    """
    package = peer("weightwatcher")
    if torch.cuda.is_available():
        pytest.skip("on CUDA WeightWatcher computes spectra from float16 copies")
    monkeypatch.chdir(tmp_path)
    with quietly():
        return package.WeightWatcher(model=gpt2, log_level=logging.ERROR)


def test_weight_watcher_sees_the_same_spectra(gpt2: Any, watcher: Any) -> None:
    before = {name: p.clone() for name, p in gpt2.named_parameters()}
    with quietly():
        table = watcher.analyze(min_evals=8).set_index("longname")
    assert "transformer.ln_f" not in table.index  # it looks at no norm
    # Tied: the head is the embedding once more.
    assert table.loc["lm_head", "alpha"] == table.loc["transformer.wte", "alpha"]
    weights = {
        "transformer.wte": gpt2.transformer.wte.weight,
        "transformer.wpe": gpt2.transformer.wpe.weight,
        "transformer.h.1.attn.c_attn": gpt2.transformer.h[1].attn.c_attn.weight,
        "transformer.h.1.attn.c_proj": gpt2.transformer.h[1].attn.c_proj.weight,
        "transformer.h.0.mlp.c_fc": gpt2.transformer.h[0].mlp.c_fc.weight,
        "transformer.h.0.mlp.c_proj": gpt2.transformer.h[0].mlp.c_proj.weight,
    }
    for name, weight in weights.items():
        row = table.loc[name]
        sigma = singular_spectrum(weight.detach())
        ranks = ranks_of(sigma)
        squares = sigma.square().numpy()
        # Its eigenvalues are σ², whatever the shape.
        assert row["spectral_norm"] == pytest.approx(squares[0], rel=1e-4)
        assert row["norm"] == pytest.approx(squares.sum(), rel=1e-4)  # the square of Frobenius'
        assert row["log_norm"] == pytest.approx(np.log10(squares.sum()), abs=1e-4)
        assert row["stable_rank"] == pytest.approx(ranks.stable, rel=1e-4)
        rank = int((sigma > 1e-7 * sigma[0]).sum())
        assert row["matrix_rank"] == rank
        # Its entropy is over the logarithm of the rank, in σ²: ours is the number of directions.
        assert row["entropy"] == pytest.approx(np.log(ranks.entropy) / np.log(rank), rel=1e-3)
        assert row["alpha_weighted"] == pytest.approx(row["alpha"] * np.log10(squares[0]), abs=1e-3)
        # Its tail may hold two values where ours holds ten; with the same beginning the exponent
        # is the same.
        tail = squares[squares >= row["xmin"] * (1 - 1e-4)]
        alpha = 1 + len(tail) / np.log(tail / tail.min()).sum()
        assert row["alpha"] == pytest.approx(alpha, rel=1e-3)
        assert row["D"] == pytest.approx(one_sided(squares, tail.min(), alpha), abs=1e-3)
        ours = tail_law(torch.from_numpy(squares))
        if len(tail) == ours.count:
            assert row["alpha"] == pytest.approx(ours.alpha, rel=1e-3)
            assert row["sigma"] == pytest.approx(ours.standard_error, rel=1e-3)
    assert all(torch.equal(before[name], p) for name, p in gpt2.named_parameters())


@pytest.mark.parametrize("shape", [(96, 64), (128, 32)])
def test_weight_watchers_exponents_are_ours(shape: tuple[int, int]) -> None:
    """Its fitter on a spectrum whose tail both begin at the same value or each at its own best."""
    peer("weightwatcher")
    with quietly():
        from weightwatcher.WW_powerlaw import WWFit

        torch.manual_seed(sum(shape))
        weight = torch.randn(shape, dtype=torch.float64) * (torch.randn(shape[0], 1)).exp()
        squares = singular_spectrum(weight).square().numpy()
        theirs = WWFit(squares)
    ours = tail_law(torch.from_numpy(squares))
    assert theirs.D == pytest.approx(one_sided(squares, theirs.xmin, theirs.alpha), abs=1e-9)
    assert theirs.D <= one_sided(squares, ours.x_min, ours.alpha) + 1e-9
    # At our beginning of the tail its table has our exponent and error.
    place = int(np.argmin(np.abs(np.sort(squares)[:-1] - ours.x_min)))
    assert theirs.alphas[place] == pytest.approx(ours.alpha, rel=1e-9)
    assert theirs.sigmas[place] == pytest.approx(ours.standard_error, rel=1e-9)


def test_the_law_of_noise_is_weight_watchers(gpt2: Any, watcher: Any) -> None:
    """Its densities are of λ/N, ours of σ; its fit of the bulk is its own, but the edge and the
    soft rank that follow from its fit are ours."""
    peer("weightwatcher")
    with quietly():
        from weightwatcher import RMT_Util

        rows, columns, std = 400, 100, 0.3
        law = MarchenkoPastur.of((rows, columns), std)
        low, high = law.edges()
        sigma = torch.linspace(low * 1.01, high * 0.99, 50, dtype=torch.float64)
        _, theirs, a, b = RMT_Util.marchenko_pastur_fun(
            sigma.square().numpy() / rows, rows / columns, std
        )
        row = watcher.analyze(min_evals=8, mp_fit=True, savefig=False, layers=["c_fc"]).set_index(
            "longname"
        )
    assert (a * rows, b * rows) == pytest.approx((low**2, high**2))
    np.testing.assert_allclose(law.density(sigma), theirs * 2 * sigma.numpy() / rows, rtol=1e-9)
    fit = row.loc["transformer.h.0.mlp.c_fc"]
    weight = gpt2.transformer.h[0].mlp.c_fc.weight.detach()
    std = fit["sigma_mp"] / fit["W_scale"] / max(weight.shape) ** 0.5
    edge, largest = MarchenkoPastur.of(weight.shape, std).edges()[1], singular_spectrum(weight)[0]
    assert (edge / float(largest)) ** 2 == pytest.approx(fit["mp_softrank"], rel=1e-3)


def test_planted_spikes_are_above_noise_for_both(tmp_path: Path, monkeypatch: Any) -> None:
    package = peer("weightwatcher")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    layer = torch.nn.Linear(100, 300, bias=False)
    u, v = (torch.linalg.qr(torch.randn(n, 4)).Q for n in (300, 100))
    with torch.no_grad():
        layer.weight.copy_(0.05 * torch.randn(300, 100) + u * torch.tensor([9.0, 8, 7, 6]) @ v.T)
    with quietly():
        watcher = package.WeightWatcher(model=torch.nn.Sequential(layer), log_level=logging.ERROR)
        theirs = watcher.analyze(mp_fit=True, savefig=False)["num_spikes"].iloc[0]
    values = singular_spectrum(layer.weight.detach())
    ours = compare_with_noise(values, MarchenkoPastur.of((300, 100), 0.05))
    assert ours.above == theirs == 4


def test_the_rank_law_is_numpys_regression() -> None:
    values = singular_spectrum(gaussian(1, 200, 80)[0])
    law = rank_law(values)
    first, last = law.fitted
    k = np.arange(first, last + 1)
    slope, intercept = np.polyfit(np.log(k), np.log(values.numpy()[first - 1 : last]), 1)
    assert law.exponent == pytest.approx(-slope)
    assert law.intercept == pytest.approx(intercept)
