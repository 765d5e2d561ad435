"""What a head loses of a gradient: against explicit projectors, and planted shares."""

from pathlib import Path

import pytest
import torch
from heads import D, V, independent, model_of, session
from planted import claim, draw_all
from torch import Tensor

from headless.analysis.head.bottleneck import Scored, bottleneck, losses, sampled, through
from headless.analysis.head.lens import head_of
from headless.errors import HeadlessError

DRAW = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=DRAW, dtype=torch.float64)


def projector(rows_MD: Tensor) -> Tensor:
    return rows_MD @ torch.linalg.pinv(rows_MD)


def scored(gradient_NM: Tensor, rows_MD: Tensor) -> Scored:
    every_M = torch.ones(len(rows_MD), dtype=torch.bool)
    own_N = torch.zeros(len(gradient_NM), dtype=torch.long)
    return Scored(gradient_NM, rows_MD, every_M, own_N, len(rows_MD))


@pytest.mark.parametrize("lost", [0.0, 0.6, 1.0])
def test_a_planted_share_is_lost(lost: float) -> None:
    rows_MD, inside_ND, any_NM = random(40, 5), random(7, 5), random(7, 40)
    inside_NM = torch.nn.functional.normalize(inside_ND @ rows_MD.T, dim=1)
    outside_NM = torch.nn.functional.normalize(any_NM - any_NM @ projector(rows_MD), dim=1)
    gradient_NM = (1 - lost**2) ** 0.5 * inside_NM + lost * outside_NM
    passed = through(scored(gradient_NM, rows_MD))
    assert passed.shares()["lost"] == pytest.approx(lost, abs=1e-4)
    assert passed.shares()["kept"] == pytest.approx((1 - lost**2) ** 0.5, abs=1e-4)
    theirs = torch.linalg.svdvals(gradient_NM @ rows_MD)
    torch.testing.assert_close(passed.spectrum_R, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("number", [3, 20])  # fewer rows than dimensions, and more
def test_own_rows_that_others_do_not_score(number: int) -> None:
    """Random columns and the token's own: a softmax and a projector of its own each."""
    weight_VD, states_ND = random(30, 5), random(8, 5)
    targets_N, drawn_M = torch.arange(8) * 3, torch.arange(2, 2 + number)
    logits_NV = states_ND @ weight_VD.T
    ours = sampled(logits_NV, targets_N, weight_VD, drawn_M)
    kept = whole = 0.0
    for logits_V, target in zip(logits_NV, targets_N.tolist(), strict=True):
        others = [i for i in drawn_M.tolist() if i != target]
        weights = torch.tensor([30 / number] * len(others) + [1.0], dtype=torch.float64)
        p_M = (logits_V[[*others, target]].exp() * weights) / (
            logits_V[[*others, target]].exp() @ weights
        )
        p_M[-1] -= 1
        kept += float((projector(weight_VD[[*others, target]]) @ p_M).square().sum())
        whole += float(p_M.square().sum())
    passed = through(ours)
    assert passed.whole == pytest.approx(whole)
    assert passed.kept == pytest.approx(kept, rel=1e-5)


def test_the_null_head_has_the_same_singular_values() -> None:
    for rows in (40, 3):  # also fewer rows than dimensions
        one = scored(random(9, rows), random(rows, 5))
        null = one.with_random_rows(DRAW)
        values = [torch.linalg.svdvals(x.rows_MD) for x in (one, null)]
        torch.testing.assert_close(*values)
        assert not torch.allclose(one.rows_MD, null.rows_MD)
    kept = [through(scored(random(200, 400), random(400, 20)).with_random_rows(DRAW))]
    assert kept[0].shares()["kept"] ** 2 == pytest.approx(20 / 400, rel=0.05)


def test_of_a_model(tmp_path: Path) -> None:
    """A narrow head loses, by a projector in float64; one that is as wide as V nothing."""
    lab = session(model_of(), independent())
    found = bottleneck(lab)
    s = found.scalars
    head_VD = lab.subject.model.lm_head.weight.detach().double()
    assert s["bottleneck/full/candidates"] == V
    assert s["bottleneck/contrastive/candidates"] == s["bottleneck/random_columns/candidates"] < V
    # Untrained, its logits' gradients lie anywhere: what passes is the share of the dimensions.
    assert s["bottleneck/full/lost"] == pytest.approx((1 - D / V) ** 0.5, abs=0.01)
    assert s["bottleneck/full/kept_random"] ** 2 == pytest.approx(D / V, rel=0.2)
    assert s["bottleneck/full/rank_states"] <= D < s["bottleneck/full/rank_logits"]
    assert torch.linalg.matrix_rank(head_VD) == D
    assert claim(found, "95 % or more")
    assert claim(found, "loses less of it") is (
        s["bottleneck/contrastive/lost"] < s["bottleneck/full/lost"] - 0.01
    )
    draw_all(found, tmp_path)
    wide = bottleneck(session(model_of(vocab=12, width=16), independent() % 12, None))
    assert wide.scalars["bottleneck/full/lost"] == pytest.approx(0, abs=1e-3)
    assert claim(wide, "95 % or more") is False
    assert claim(wide, "loses less of it") is False


def test_candidates_are_the_targets_of_the_batch_that_is_looked_at() -> None:
    """A text whose end has other tokens than its beginning, which is the batch."""
    ids_NT = independent(700) % (V // 2)
    ids_NT[350:] += V // 2
    lab = session(model_of(), ids_NT)
    full, drawn, contrast = (x for _, x in losses(lab, head_of(lab), torch.Generator()))
    assert contrast.candidates == len(contrast.rows_MD) <= V // 2
    for one in (drawn, contrast):
        assert torch.equal(one.rows_MD[one.own_N], full.rows_MD[full.own_N])
    assert bool((contrast.gradient_NM.gather(1, contrast.own_N[:, None]) < 0).all())


def test_capped_logits_are_no_product() -> None:
    lab = session(model_of(), independent())
    lab.once("lm_head", lambda: head_of(session(model_of(), independent()))._replace(softcap=30.0))
    with pytest.raises(HeadlessError, match="not a product with a matrix"):
        bottleneck(lab)
