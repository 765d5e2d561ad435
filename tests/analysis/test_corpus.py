"""Spectra of corpora: against dense float64 formulas, and texts of which the truth is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted import draw_all, gaussian, states_lab, stream

from headless.analysis.corpus import spectrum
from headless.analysis.corpus.spectrum import corpus, covariance_spectrum, token_counts
from headless.analysis.record import Finding
from headless.errors import HeadlessError

V = 150


def zipf_text(number: int, seed: int = 0) -> np.ndarray:
    weights = 1 / np.arange(1, V + 1)
    return np.random.default_rng(seed).choice(V, size=number, p=weights / weights.sum())


def topic_text(sequences: int, length: int) -> np.ndarray:
    """Each sequence speaks of one of five topics, each with its own tokens."""
    draw = np.random.default_rng(1)
    text = zipf_text(sequences * length, 1).reshape(sequences, length)
    for row in text:
        topic = draw.integers(5)
        own = draw.random(length) < 0.5
        row[own] = 20 + 10 * topic + draw.integers(10, size=own.sum())
    return text.ravel()


@pytest.mark.parametrize(("number", "length"), [(300, 16), (60, 40)])
@pytest.mark.parametrize("scale", [False, True])
def test_the_covariance_is_the_dense_one(
    number: int, length: int, scale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = token_counts(zipf_text(number * length), length, V)
    dense = counts.toarray()
    assert dense.sum() == number * length
    dense = dense[:, dense.std(axis=0) > 0]
    if scale:
        dense = dense / dense.std(axis=0)
    wanted = np.linalg.eigvalsh(np.cov(dense.T, bias=True))[::-1]
    found = covariance_spectrum(counts, scale=scale)
    np.testing.assert_allclose(found, wanted[: len(found)], atol=1e-9)
    assert np.all(wanted[len(found) :] < 1e-9)  # none is left out
    monkeypatch.setattr(spectrum, "DENSE", 10)
    np.testing.assert_allclose(
        covariance_spectrum(counts, scale=scale, top=12), wanted[:12], rtol=1e-7
    )


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "LENGTH", 32)


def finding(tokens: np.ndarray) -> Finding:
    """Beside a table of which the squared singular values fall as rank^-0.5."""
    generator = torch.Generator().manual_seed(2)
    left = torch.randn(V, 100, generator=generator, dtype=torch.float64)
    left = torch.linalg.qr(left - left.mean(dim=0)).Q
    table = left * torch.arange(1, 101) ** -0.25
    lab = states_lab(stream([gaussian()]), {"embedding": table}, text_spectra={})
    lab.subject.tokens = tokens
    found = corpus(lab)
    assert found is not None
    assert set(lab.text_spectra) == {"real", "null"}
    return found


@pytest.mark.usefixtures("short")
def test_independent_tokens_are_their_own_null() -> None:
    found = finding(zipf_text(600 * 32))
    s = found.scalars
    for variant in ("covariance", "correlation"):
        real, null = (s[f"corpus/{variant}{k}/slope_head"] for k in ("", "/null"))
        assert real == pytest.approx(null, abs=0.04)
        assert abs(s[f"corpus/{variant}/excess_50"]) < 0.03
    (frequency,) = [c for c in found.claims if "word frequency" in c.text]
    assert frequency.agrees
    assert frequency.kind == "own"  # found in one text: never counted


@pytest.mark.usefixtures("short")
def test_topics_are_above_the_null_and_drawn(tmp_path: Path) -> None:
    found = finding(topic_text(500, 32))
    s = found.scalars
    # Five topics are four directions.
    assert 4 <= s["corpus/correlation/ranks_above_null"] <= 5
    assert s["corpus/covariance/excess_50"] > 0.2
    assert s["corpus/compare/embedding/slope"] == pytest.approx(-0.5)
    (mimics,) = [c for c in found.claims if "mimic" in c.text]
    own = s["corpus/covariance/slope_head"]
    slopes = [s[f"corpus/compare/{name}/slope"] for name in ("embedding", "last states")]
    farthest = max(abs(slope - own) for slope in slopes)
    assert mimics.agrees == (farthest <= 0.25)
    assert f"{farthest:.2f}" in mimics.criterion
    draw_all(found, tmp_path)


def test_a_short_text() -> None:
    with pytest.raises(HeadlessError, match="sequences of 128"):
        finding(zipf_text(1000))
