"""What every objective promises, for each class that `headless.objectives` exports."""

import inspect

import pytest
import torch

import headless.objectives
from headless.objectives import LMHead, Objective

OBJECTIVES = [
    c
    for c in vars(headless.objectives).values()
    if inspect.isclass(c) and issubclass(c, Objective) and c is not Objective
]
N, D, V = 24, 8, 16


@pytest.fixture(params=OBJECTIVES, ids=lambda c: c.__name__)
def objective(request) -> Objective:
    made = request.param()
    made.setup(V, D, 0.02)
    return made


def test_found_them_all() -> None:
    assert len(OBJECTIVES) >= 3


def test_loss_is_a_scalar_that_reaches_hidden_states(objective: Objective) -> None:
    hidden = torch.randn(N, D, requires_grad=True)
    output = objective(hidden, torch.randint(0, V, (N,)), torch.randn(V, D))
    output.loss.backward()
    assert output.loss.shape == ()
    assert hidden.grad.any()
    assert all(not value.requires_grad for value in output.metrics.values())


def test_head_gives_a_logit_a_token(objective: Objective) -> None:
    head = objective.lm_head(torch.randn(V, D), torch.arange(V))
    assert isinstance(head, LMHead)
    assert head.weight_VD.shape == (V, D)
    assert head.bias_V is None or head.bias_V.shape == (V,)


def test_it_says_what_it_costs_and_is_called(objective: Objective) -> None:
    assert objective.num_candidates(V, 7, N) > 0
    assert objective.describe()
