"""The metric of a validation split, without a trainer around it."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from headless.objectives import LMHead
from headless.training import evaluation
from headless.training.evaluation import Validation

V, N, D = 20, 12, 4


def scores(head: LMHead, *losses: float) -> dict[str, float]:
    metric = Validation()
    metric.begin(head, torch.arange(V), copy=False)
    for loss in losses:
        targets_N = torch.arange(N).where(torch.arange(N) > 2, -100)
        metric.update(torch.tensor(loss), torch.ones(N, D), targets_N, 0.0)
    return metric.close()


def test_a_loss_that_is_no_number_is_not_left_out() -> None:
    found = scores(LMHead(torch.ones(V, D), None), 1.0, math.nan, 2.0)
    assert math.isnan(found["loss"])
    assert found["nll"] == pytest.approx(math.log(V))


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_logits_without_the_bias_are_scored_where_somebody_asks(
    is_calibrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        passes.append(1)
        return F.cross_entropy(*arguments, **options)

    monkeypatch.setattr(evaluation, "F", type("F", (), {"cross_entropy": staticmethod(counted)}))
    bias_V = torch.arange(V).float()
    found = scores(LMHead(torch.ones(V, D), bias_V, is_calibrated=is_calibrated), 1.0)
    assert len(passes) == (2 if is_calibrated else 1)
    assert ("nll_uncalibrated" in found) == is_calibrated


@pytest.mark.parametrize("rows", [None, 3, 5])
def test_a_sample_of_rows_is_scored_exactly(
    rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of evenly spaced rows the scores are those of all V tokens; the loss and bytes are of all."""
    monkeypatch.setattr("headless.models.logits.LOGITS", 2 * V)  # two rows a chunk
    weight_VD, hidden_ND = torch.randn(V, D), torch.randn(N, D)
    targets_N = torch.randint(V, (N,))
    targets_N[6] = -100
    metric = Validation(rows)
    metric.begin(LMHead(weight_VD, None), torch.arange(V), copy=False)
    metric.update(torch.tensor(2.0), hidden_ND, targets_N, 30.0)
    found = metric.close()
    taken = {None: range(N), 3: (0, 5, 11), 5: (0, 2, 5, 8, 11)}[rows]
    logits = (hidden_ND @ weight_VD.T).double()
    nll = F.cross_entropy(logits[list(taken)], targets_N[list(taken)]).item()
    assert found["nll"] == pytest.approx(nll, rel=1e-5)
    assert found["loss"] == pytest.approx(2.0)
    assert found["bits_per_byte"] == pytest.approx(nll * (N - 1) / math.log(2) / 30, rel=1e-5)
