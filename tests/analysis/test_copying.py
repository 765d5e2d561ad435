"""Copying: a model that is planted to copy, one without a context, and pairs counted by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from heads import independent, planted, session
from planted import claim, draw_all
from torch import Tensor, nn

from headless.analysis.head.copying import copying, second_halves
from headless.errors import HeadlessError

V, STRENGTH = 100, 12.0
COUNTS = torch.arange(V, 0, -1)
BOS = V - 1


class Copies(nn.Module):
    """In place of the final norm: what followed the present token's last occurrence; else none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(V))
        self.ids_BT = torch.zeros(0)

    def forward(self, x_BTD: Tensor) -> Tensor:
        states_BTD = torch.zeros_like(x_BTD)
        for row, ids_T in enumerate(self.ids_BT.tolist()):
            after: dict[int, int] = {}
            for t, token in enumerate(ids_T):
                if t:
                    after[ids_T[t - 1]] = token
                if token in after:
                    states_BTD[row, t, after[token]] = STRENGTH
        return states_BTD


def copier() -> Any:
    model = planted(torch.eye(V), torch.eye(V))
    model.model.norm = Copies()
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: setattr(
            module.norm, "ids_BT", args[0] if args else kwargs["input_ids"]
        ),
        with_kwargs=True,
    )
    return model


@pytest.mark.parametrize("bos", [None, BOS])
def test_a_model_that_copies(bos: int | None, tmp_path: Path) -> None:
    ids_NT = independent(length=70, counts_V=COUNTS)
    model, read = copier(), list[Tensor]()
    model.model.norm.register_forward_hook(lambda module, *_: read.append(module.ids_BT))
    lab = session(model, ids_NT, COUNTS)
    object.__setattr__(lab.subject, "bos", bos)
    found: Any = copying(lab)
    if bos is not None:
        drawn = [ids_BT for ids_BT in read if ids_BT.shape[1] == 1 + 2 * 32]
        assert drawn
        assert all(ids_BT[:, 0].eq(bos).all() for ids_BT in drawn)
    s = found.scalars
    right = math.log1p((V - 1) * math.exp(-STRENGTH))
    assert s["copying/nll_repeated"] == pytest.approx(right, rel=1e-3)  # float32
    assert s["copying/nll_new"] == pytest.approx(math.log(V), abs=0.4)  # a BOS may be drawn as well
    # In another order it is misled, but where two tokens still follow each other by chance.
    assert s["copying/nll_reordered"] == pytest.approx(STRENGTH + right, rel=0.1)
    assert s["copying/induction"] == s["copying/nll_reordered"] - s["copying/nll_repeated"]
    assert s["copying/recurrence"] == s["copying/nll_new"] - s["copying/nll_reordered"]
    assert s["copying/induction_chance"] < 0.5
    assert claim(found, "is copied") is True
    assert claim(found, "begun to copy") is True
    draw_all(found, tmp_path)


def test_a_model_without_a_context_does_not(tmp_path: Path) -> None:
    """The same prediction everywhere, whatever it is."""
    embedding_VD = torch.ones(V, 8)
    head_VD = torch.randn(V, 8, generator=torch.Generator().manual_seed(0))
    found: Any = copying(
        session(planted(embedding_VD, head_VD), independent(length=70, counts_V=COUNTS), COUNTS)
    )
    assert found.scalars["copying/induction"] == pytest.approx(0, abs=1e-6)
    assert found.scalars["copying/induction_chance"] == pytest.approx(0, abs=1e-6)
    assert claim(found, "is copied") is False
    assert claim(found, "begun to copy") is False


def test_pairs_of_the_text_that_come_again() -> None:
    """Of 1 2 3 1 2 4 1 2 3: "1 2" twice more and "2 3" once; the copier expects what came last."""
    text = [1, 2, 3, 1, 2, 4, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    found: Any = copying(session(copier(), torch.tensor([text, text]), COUNTS))
    s = found.scalars
    right = math.log1p((V - 1) * math.exp(-STRENGTH))
    assert s["copying/again"] == pytest.approx(3 / 19)
    # Both "1 2" are foreseen; the "3" is not: "4" followed the last "2".
    assert s["copying/nll_again"] == pytest.approx((2 * right + STRENGTH + right) / 3, rel=1e-5)
    assert s["copying/nll_first"] == pytest.approx(math.log(V), rel=1e-5)
    # Of the other sixteen the copier is wrong about the 4, having read 2 3, and the 5, having read
    # 3 1; of the others it knows nothing.
    misled = STRENGTH + right
    assert s["copying/nll_others"] == pytest.approx((2 * misled + 14 * math.log(V)) / 16, rel=1e-5)


def test_halves_hold_each_token_once() -> None:
    lab = session(copier(), independent(length=70, counts_V=COUNTS), COUNTS)
    halves = second_halves(lab, V)
    first_SH = halves["first"]
    assert torch.equal(halves["repeated"], first_SH)
    for row in range(len(first_SH)):
        own = set(first_SH[row].tolist())
        assert len(own) == first_SH.shape[1]
        assert own.isdisjoint(halves["new"][row].tolist())
        for name in ("reordered", "reordered_again"):
            assert set(halves[name][row].tolist()) == own
            assert halves[name][row, 0] == first_SH[row, 0]
    # Tokens of both halves are as frequent: neither is what was left over.
    means = [COUNTS[halves[name]].double().mean() for name in ("first", "new")]
    assert means[0] == pytest.approx(float(means[1]), rel=0.05)


def test_too_short_a_text_is_refused() -> None:
    with pytest.raises(HeadlessError, match="sequences of 17 tokens"):
        copying(session(copier(), independent(length=16, counts_V=COUNTS), COUNTS))
