"""The logged geometry against cosines of all pairs and numpy's singular values."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import headless.callbacks.geometry
from headless.callbacks.evaluating import evaluating
from headless.callbacks.geometry import GeometryMonitor, measure

ANISOTROPY, FIRST = "geometry/anisotropy/", "geometry/anisotropy_first_position/"
RANK = "geometry/effective_rank/"


def mean_cosine(x_ND: np.ndarray) -> float:
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    return float(np.mean([a @ b for a, b in itertools.combinations(unit_ND, 2)]))


def roy_vetterli(x_ND: np.ndarray) -> float:
    values = np.linalg.svd(x_ND - x_ND.mean(axis=0), compute_uv=False)
    shares = values[values > 1e-7 * values[0]] / values[values > 1e-7 * values[0]].sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def split(*states: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """States [B, T, D] of layers, as `measure` takes them."""
    return [(x_BTD[:, 0], x_BTD[:, 1:].flatten(0, 1)) for x_BTD in states]


def test_values_of_the_trained_model(train) -> None:
    run = train("run", "--trainer.max_steps", "6")
    points = run.with_key(ANISOTROPY + "embedding")
    # The untrained model, every fourth step, and the trained one.
    assert [p["progress/step"] for p in points] == [0, 4, 6]
    assert points[0]["progress/tokens"] == 0
    last, model = points[-1], run.cli.model.eval()
    probe = run.cli.datamodule.probe_batch(3)["input_ids"]
    with torch.no_grad():
        output = model.backbone(input_ids=probe, output_hidden_states=True)
    assert len(output.hidden_states) == 3
    for layer, state in enumerate(output.hidden_states):
        state_BTD = state.double().numpy()
        later_ND = state_BTD[:, 1:].reshape(-1, 16)
        name = f"layer_{layer:02d}"
        assert last[ANISOTROPY + name] == pytest.approx(mean_cosine(later_ND), abs=1e-6)
        assert last[RANK + name] == pytest.approx(roy_vetterli(later_ND), rel=1e-5)
        assert last[FIRST + name] == pytest.approx(mean_cosine(state_BTD[:, 0]), abs=1e-6)
    table_VD = model.embedding_VD.detach().double().numpy()
    assert last[ANISOTROPY + "embedding"] == pytest.approx(mean_cosine(table_VD), abs=1e-6)
    assert last[RANK + "embedding"] == pytest.approx(roy_vetterli(table_VD), rel=1e-5)
    torch.testing.assert_close(output.hidden_states[-1], output.last_hidden_state)
    assert points[0] != points[1]


def test_the_first_position_stays_out_of_the_others() -> None:
    """A first position as in real models: huge and always the same."""
    torch.manual_seed(1)
    state_BTD = torch.randn(4, 9, 6)
    without = measure(split(state_BTD), torch.randn(5, 6))
    state_BTD[:, 0] = 1e4
    values = measure(split(state_BTD), torch.randn(5, 6))
    for key in (ANISOTROPY + "layer_00", RANK + "layer_00"):
        assert values[key] == without[key]
    assert values[FIRST + "layer_00"] == pytest.approx(1.0)


def test_what_is_not_defined_is_left_out() -> None:
    values = measure(split(torch.randn(1, 9, 6)), torch.randn(5, 6))
    assert FIRST + "layer_00" not in values
    assert ANISOTROPY + "layer_00" in values


def test_a_broken_model_does_not_break_the_monitor() -> None:
    """States that are not numbers: no value is logged for them, and the others are."""
    state_BTD = torch.randn(2, 9, 6)
    values = measure(split(state_BTD * torch.nan, state_BTD), torch.randn(5, 6))
    assert not [key for key in values if key.endswith("layer_00")]
    assert ANISOTROPY + "layer_01" in values


@pytest.mark.parametrize("length", [256, 1000])
def test_only_real_tokens_are_states(train, length) -> None:
    """A validation split of two sequences and a piece, and one of a piece alone."""
    more = ("--data.sequence_length", str(length), "--data.batch_size", "1")
    wide = ("--model.backbone.max_position_embeddings", "1000", "--geometry.num_sequences", "8")
    run = train("run", "--trainer.max_steps", "3", "--samples.every_n_steps", "100", *more, *wide)
    data, model = run.cli.datamodule, run.cli.model.eval()
    tokens = torch.from_numpy(data.dataset.split("validation").tokens[:-1].astype("int64"))
    pieces = tokens.split(length)
    assert len(pieces[-1]) < length  # of which the rest is filled up
    with torch.no_grad():
        states = [model.backbone(piece[None]).last_hidden_state[0].double() for piece in pieces]
    later_ND = torch.cat([state_TD[1:] for state_TD in states]).numpy()
    last = run.with_key(ANISOTROPY + "layer_02")[-1]
    assert last[ANISOTROPY + "layer_02"] == pytest.approx(mean_cosine(later_ND), abs=1e-5)
    assert last[RANK + "layer_02"] == pytest.approx(roy_vetterli(later_ND), rel=1e-4)
    assert last["geometry/states"] == len(later_ND)


@pytest.mark.parametrize(("rows", "columns"), [(200, 24), (24, 24), (12, 24), (2, 24)])
def test_a_rank_stands_beside_its_bound_and_its_null(rows, columns) -> None:
    """A Gaussian's states have the null's rank, however few there are."""
    layers = [(torch.randn(2, columns), torch.randn(rows, columns))]
    values = measure(layers, torch.randn(5, 6))
    assert values["geometry/states"] == rows
    assert values[RANK + "bound"] == min(rows - 1, columns)
    assert values[RANK + "null"] == pytest.approx(values[RANK + "layer_00"], rel=0.03)
    assert values[RANK + "null"] <= values[RANK + "bound"] + 1e-9


def test_there_are_enough_states(train) -> None:
    """Eight sequences of few tokens would bound the rank by themselves."""
    wide = ("--model.backbone.hidden_size", "32", "--data.sequence_length", "8")
    small = ("--model.backbone.intermediate_size", "32", "--trainer.max_steps", "3")

    def let_choose(cli) -> None:
        monitor = next(c for c in cli.trainer.callbacks if isinstance(c, GeometryMonitor))
        monitor.num_sequences = None

    run = train("run", *wide, *small, change=let_choose)
    point = run.with_key("geometry/states")[-1]
    assert point["geometry/states"] >= 8 * 32
    assert point[RANK + "null"] > 0.9 * 32


def test_a_resume_repeats_nothing(train) -> None:
    train("run", "--trainer.max_steps", "6")
    run = train("run", "--trainer.max_steps", "7", "--run.resume", "true")
    steps = [p["progress/step"] for p in run.with_key(ANISOTROPY + "embedding")]
    assert steps == [0, 4, 6, 7]


def test_every_part_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1][0].eval()
    before = [part.training for part in model.modules()]
    with evaluating(model):
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
    assert [part.training for part in model.modules()] == before
    assert torch.is_grad_enabled()


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="num_sequences"):
        GeometryMonitor(num_sequences=0)


def test_no_more_states_than_there_is_room_for(train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all layers grow with the square of the width."""
    row = 4 * 3 * 16 * 16  # a sequence of 16 states, in three layers of 16 float32
    for room, number, expected in ((row * 100, None, 9), (row * 5, None, 8), (row * 5, 12, 12)):
        monkeypatch.setattr(headless.callbacks.geometry, "ROOM", room)

        def choose(cli, number: int | None = number) -> None:
            monitor = next(c for c in cli.trainer.callbacks if isinstance(c, GeometryMonitor))
            monitor.num_sequences = number

        run = train(f"run-{expected}", "--trainer.max_steps", "2", change=choose)
        assert run.with_key("geometry/states")[-1]["geometry/states"] == expected * 15
