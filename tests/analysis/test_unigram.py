"""Log p(v) in the states: planted in the head, in a bias, in a direction; and nowhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads import ORDER, ZIPF, D, V, independent, model_of, planted, session
from planted import claim, draw_all

from headless.analysis.head.bottleneck import bottleneck
from headless.analysis.head.lens import TOKENS, Readout, head_of, reading, streams, text_of
from headless.analysis.head.neurons import neurons
from headless.analysis.head.ngrams import ngrams
from headless.analysis.head.unigram import unigram
from headless.analysis.record import Place
from headless.errors import HeadlessError
from headless.objectives.base import log_unigram

LOG_P = log_unigram(ZIPF)
WRITES = "the states themselves carry"


def uniting(share: float) -> Any:
    """States of which this share is one direction, and a head that reads log p in it alone."""
    draw = torch.Generator().manual_seed(2)
    away_VD = torch.randn(V, D, generator=draw)
    away_VD[:, 0] = 0
    embedding_VD = (1 - share) ** 0.5 * torch.nn.functional.normalize(away_VD, dim=1)
    embedding_VD[:, 0] = share**0.5
    head_VD = torch.randn(V, D, generator=draw) / 100
    head_VD[:, 0] = LOG_P / (D * share) ** 0.5  # a norm's output has the length √D
    return planted(embedding_VD, head_VD)


def test_a_head_that_encodes_log_p(tmp_path: Path) -> None:
    """Of states that are one direction: R², slope and shares of 1, at every place."""
    found = unigram(session(uniting(1.0), independent()))
    for place in ("embed", "post/01", "norm_f"):
        assert found.scalars[f"unigram/{place}/r2"] == pytest.approx(1, abs=1e-5)
        assert found.scalars[f"unigram/{place}/slope"] == pytest.approx(1, abs=1e-3)
        assert found.scalars[f"unigram/{place}/share"] == pytest.approx(1, abs=1e-5)
        assert found.scalars[f"unigram/{place}/moment"] == pytest.approx(1, abs=1e-3)
        assert found.scalars[f"unigram/{place}/r2_shuffled"] < 0.05
    assert found.scalars["unigram/reach"] == pytest.approx(1)
    assert found.scalars["unigram/largest_r2"] == pytest.approx(1)
    assert claim(found, WRITES)
    assert claim(found, "One dimension")
    draw_all(found, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_another_precision(dtype: torch.dtype) -> None:
    ids_NT = independent(8)
    for one in (unigram, ngrams, neurons, bottleneck):
        whole, other = (one(session(uniting(1.0).to(t), ids_NT)) for t in (torch.float32, dtype))
        for name in ("unigram/post/00/slope", "ngrams/unigram/divergence", "bottleneck/full/lost"):
            if name in whole.scalars:
                assert other.scalars[name] == pytest.approx(whole.scalars[name], 0.02, 1e-3), name


def test_the_same_with_counts_of_other_tokens() -> None:
    found = unigram(session(uniting(1.0), independent(), ZIPF[ORDER]))
    assert found.scalars["unigram/norm_f/r2"] < 0.05
    assert abs(found.scalars["unigram/norm_f/slope"]) < 0.2
    assert claim(found, WRITES) is False
    assert claim(found, "One dimension") is False


def test_a_planted_share_of_the_stream() -> None:
    found = unigram(session(uniting(0.3), independent()))
    for place in ("embed", "post/00", "norm_f"):
        assert found.scalars[f"unigram/{place}/moment"] == pytest.approx(0.3, abs=0.01)
        assert found.scalars[f"unigram/{place}/variance"] < 0.01
    assert found.scalars["unigram/norm_f/moment_random"] < 0.3
    assert found.scalars["unigram/norm_f/slope"] == pytest.approx(1, abs=0.02)


def test_biases_that_hold_it_instead() -> None:
    """The final norm's, as in GPT-2, and the head's, as of a calibrated one."""
    model = model_of("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(1e-3)
        model.transformer.ln_f.bias.copy_(torch.eye(D)[3])
        model.lm_head.weight[:, 3] = LOG_P
        model.lm_head.bias = torch.nn.Parameter(2 * LOG_P)
    ids_NT = independent()
    found = unigram(session(model, ids_NT))
    assert found.scalars["unigram/norm_bias/r2"] == pytest.approx(1)
    assert found.scalars["unigram/norm_bias/slope"] == pytest.approx(1)
    assert found.scalars["unigram/head_bias/slope"] == pytest.approx(2)
    assert claim(found, "final norm's bias")
    assert not [c for c in found.claims if WRITES in c.text]  # it has a bias for it
    assert claim(found, "disentangles") is False  # and writes it all the same
    other = unigram(session(model, ids_NT, ZIPF[ORDER]))
    assert claim(other, "final norm's bias") is False
    assert other.scalars["unigram/head_bias/r2"] < 0.05
    assert not [c for c in other.claims if "disentangles" in c.text]
    with torch.no_grad():
        model.lm_head.weight[:, 3] = 0
    assert claim(unigram(session(model, ids_NT)), "disentangles")


def test_a_readout_is_a_regression() -> None:
    """Against numpy, before a norm as after it."""
    draw = torch.Generator().manual_seed(3)
    rows_UD = torch.randn(50, 6, generator=draw, dtype=torch.float64)
    log_p_U, gain_D, state_D = (
        torch.randn(n, generator=draw, dtype=torch.float64) for n in (50, 6, 6)
    )
    rows_UD, log_p_U = rows_UD - rows_UD.mean(0), log_p_U - log_p_U.mean()
    chance_DS = rows_UD.T @ log_p_U[:, None]
    readout = Readout(rows_UD.T @ rows_UD, rows_UD.T @ log_p_U, chance_DS, float(log_p_U @ log_p_U))
    for centred in (False, True):
        inner_D = (state_D - state_D.mean() if centred else state_D) * gain_D
        pair = torch.stack([rows_UD @ inner_D, log_p_U])
        behind = readout.behind(gain_D, centred)
        assert behind.r2(state_D) == pytest.approx(float(torch.corrcoef(pair)[0, 1]) ** 2)
    fit = torch.linalg.lstsq(rows_UD, log_p_U[:, None]).solution[:, 0]
    assert float(readout.direction() @ fit / fit.norm()) == pytest.approx(1)


def test_a_head_that_is_more_than_a_matrix() -> None:
    lab = session(model_of(), independent())
    assert head_of(lab).weight_VD is not None
    lab = session(model_of(), independent())
    lab.subject.model.lm_head.register_forward_hook(lambda m, i, out: 3 * out)
    with pytest.raises(HeadlessError, match="more than its last states times a matrix"):
        head_of(lab)


class Cosines(torch.nn.Linear):
    """A head that reads directions alone."""

    normalize = True

    def forward(self, states_BTD: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.nn.functional.normalize(states_BTD, dim=-1))


@pytest.mark.parametrize("family", ["llama", "gpt2", "llama, cosines"])
def test_a_model_of_random_weights_against_numpy(family: str) -> None:
    """Nothing planted: a norm with a gain, blocks that add, tokens that never occur."""
    model = model_of(family.partition(",")[0])
    norm = model.transformer.ln_f if family == "gpt2" else model.model.norm
    with torch.no_grad():
        if "cosines" in family:
            model.lm_head = Cosines(D, V, bias=False)
        norm.weight.copy_(torch.linspace(0.2, 3, D))
    counts_V = ZIPF.clone()
    counts_V[::7] = 0
    lab = session(model, independent(counts_V=counts_V), counts_V)
    found = unigram(lab).scalars
    seen = (counts_V > 0).numpy()
    log_p_U = LOG_P.numpy()[seen] - LOG_P.numpy()[seen].mean()
    rows_UD = model.lm_head.weight.detach().double().numpy()[seen]
    rows_UD = rows_UD - rows_UD.mean(axis=0)
    inner_UD = rows_UD * norm.weight.detach().double().numpy()
    if family == "gpt2":  # its norm centres
        inner_UD = inner_UD - inner_UD.mean(axis=1, keepdims=True)
    for place, s in streams(lab).items():
        raw_KD, final = s.sample_KD, place.kind == "norm_f"
        read_KD = (raw_KD if final else norm(raw_KD)).detach().double().numpy()
        if "cosines" in family:
            read_KD = read_KD / np.linalg.norm(read_KD, axis=1, keepdims=True)
        own, logits_KU = f"unigram/{place}", read_KD @ rows_UD.T
        correlation = np.corrcoef(logits_KU.mean(axis=0), log_p_U)[0, 1]
        assert found[f"{own}/r2"] == pytest.approx(correlation**2, rel=1e-3, abs=1e-9)
        slope = np.polyfit(log_p_U, logits_KU.mean(axis=0), 1)[0]
        assert found[f"{own}/slope"] == pytest.approx(slope, rel=1e-3)
        along_K = logits_KU @ log_p_U / np.linalg.norm(log_p_U)
        share = np.square(along_K).sum() / np.square(logits_KU).sum()
        assert found[f"{own}/share"] == pytest.approx(share, rel=1e-4)
        fit_D = np.linalg.lstsq(rows_UD if final else inner_UD, log_p_U, rcond=1e-6)[0]
        x_KD = raw_KD.double().numpy()
        for name, y_KD in (("moment", x_KD), ("variance", x_KD - x_KD.mean(axis=0))):
            of_direction = np.square(y_KD @ fit_D).sum() / np.square(fit_D).sum()
            expected = of_direction / np.square(y_KD).sum()
            assert found[f"{own}/{name}"] == pytest.approx(expected, rel=1e-3), (own, name)
            # Of 19 directions the largest is above what all of them have in the mean.
            assert 1.2 / D < found[f"{own}/{name}_random"] < 1
        assert 0.001 < found[f"{own}/r2_shuffled"] < 0.2
        assert 0.001 < found[f"{own}/share_shuffled"] < 0.2
    largest = streams(lab)[Place("post", 1)].sample_KD.square().mean(dim=0)
    correlation = np.corrcoef(inner_UD[:, int(largest.argmax())], log_p_U)[0, 1]
    assert found["unigram/largest_r2"] == pytest.approx(correlation**2, rel=1e-5)


def test_text_and_tokens_are_taken_from_all_of_it() -> None:
    ids_NT = independent(700)
    lab = session(model_of(), ids_NT)
    assert torch.equal(text_of(lab), ids_NT[::2][: TOKENS // 34])
    every, some = reading(lab, 10**9), reading(lab, 10)
    assert len(some.next_N) == 10
    for end in (0, -1):
        assert torch.equal(some.states_ND[end], every.states_ND[end])
    now, following = ids_NT[:, 1:-1].flatten(), ids_NT[:, 2:].flatten()
    pairs = set(zip(now.tolist(), following.tolist(), strict=True))
    assert set(zip(every.now_N.tolist(), every.next_N.tolist(), strict=True)) <= pairs


def test_rows_beyond_the_vocabulary_are_no_tokens() -> None:
    """A padded table, as those of many models: the same numbers as of the table without."""
    ids_NT = independent(8)
    padded = planted(torch.randn(V + 8, D), torch.randn(V + 8, D))
    plain = model_of()
    plain.load_state_dict(
        {k: w[:V] if w.shape[:1] == (V + 8,) else w for k, w in padded.state_dict().items()}
    )
    for one, kept in ((unigram, "unigram/norm_f/"), (bottleneck, "bottleneck/width")):
        ours, theirs = (one(session(model, ids_NT)).scalars for model in (padded, plain))
        names = [name for name in theirs if name.startswith(kept)]
        assert names
        for name in names:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-8), name
    found = ngrams(session(padded, ids_NT)).scalars
    assert found["ngrams/unigram/nll"] == pytest.approx(
        ngrams(session(plain, ids_NT)).scalars["ngrams/unigram/nll"], abs=0.02
    )
