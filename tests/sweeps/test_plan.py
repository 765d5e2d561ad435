"""Which runs are wanted, and when."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headless.errors import HeadlessError
from headless.sweeps.config import SweepConfig, Tuning
from headless.sweeps.plan import Arm, Plan, Result, make_plan
from headless.sweeps.work import settings_of

LR = "model.optimizer.lr"


def arms_of(config: SweepConfig, **seconds: float) -> dict[str, Arm]:
    return {n: Arm(s, 100, 10, 64, 7, seconds.get(n)) for n, s in config.settings.items()}


def trained(config: SweepConfig, arms: dict[str, Arm], failing: str = "") -> tuple[Plan, list[str]]:
    """A sweep to its end, and its runs in the order in which they were wanted; all score 4."""
    results: dict[str, Result] = {}
    while True:
        plan = make_plan(config, arms, results)
        new = next((job for job in plan.jobs if job.place not in results), None)
        if new is None:
            assert plan.complete
            return plan, list(results)
        fails = failing and failing in new.place
        results[new.place] = Result("failed") if fails else Result("complete", 4.0)


def test_arms_are_combinations_and_blocks_share_a_value() -> None:
    sizes = {"small": {"model.backbone.hidden_size": 8}, "large": {"trainer.max_steps": 9}}
    config = SweepConfig(
        "s",
        "base.yaml",
        objectives={"ce": {"class_path": "CrossEntropy"}, "cwt": {"class_path": "C"}},
        vary={"size": sizes},
        within="size",
        budgets=["equal_tokens", "equal_seconds"],
    )
    assert config.settings["cwt-large"] == {
        "model.objective": {"class_path": "C"},
        "trainer.max_steps": 9,
    }
    small, large = ["ce-small", "cwt-small"], ["ce-large", "cwt-large"]
    assert config.blocks == {"small": small, "large": large}
    seconds = {"ce-small": 2.0, "cwt-small": 1.0, "ce-large": 4.0, "cwt-large": 3.96}
    plan, _ = trained(config, arms_of(config, **seconds))
    steps = {name: jobs[0].steps for name, jobs in plan.runs["equal_seconds"].items()}
    assert steps == {"ce-small": 50, "cwt-small": 100, "ce-large": 100, "cwt-large": 100}
    assert plan.runs["equal_seconds"]["ce-large"] == plan.runs["equal_tokens"]["ce-large"]
    with pytest.raises(HeadlessError, match="within must be an axis"):
        replace(config, within="depth")


def test_some_arms_have_more_seeds_and_each_arm_one_before_any_has_two() -> None:
    arms = {"a": {}, "b-x": {}, "b-y": {}}
    seeds = {"b-*": [1, 2], "b-y": [1, 2, 3]}
    config = SweepConfig("s", "base.yaml", arms=arms, seeds=[1], arm_seeds=seeds)
    plan, order = trained(config, arms_of(config))
    wanted = ["a1", "b-x1", "b-y1", "b-x2", "b-y2", "b-y3"]
    assert order == [f"final/{name[:-1]}-steps100-seed{name[-1]}" for name in wanted]
    runs = plan.runs["equal_tokens"]
    assert {name: [job.seed for job in jobs] for name, jobs in runs.items()} == {
        "a": [1],
        "b-x": [1, 2],
        "b-y": [1, 2, 3],
    }
    for wrong, message in (
        ({"c-*": [1]}, "arm_seeds: no arm is called 'c-\\*'"),
        ({"b-*": [1, 1]}, "arm_seeds: b-\\* must be a list of different numbers"),
        ({"b-x": [0, 1]}, "tune.seed 0 is among the seeds of b-x"),
    ):
        tune = Tuning({LR: {"grid": [1, 2]}})
        with pytest.raises(HeadlessError, match=message):
            replace(config, arm_seeds=wrong, tune=tune)


def test_an_arm_begins_from_the_run_of_another_with_its_seed() -> None:
    tuning = Tuning({LR: {"grid": [1, 2]}}, arms={"after": None}, widen=False)
    arms = {"first": {}, "after": {"begin_from": "first"}}
    config = SweepConfig("s", "base.yaml", arms=arms, seeds=[1, 2], tune=tuning)
    plan, order = trained(config, arms_of(config))
    assert order == [
        *(f"tune/first-lr{lr}-steps100-seed0" for lr in (1, 2)),
        *(f"final/{arm}-steps100-seed{s}" for s in (1, 2) for arm in ("first-lr1", "after")),
    ]
    job = plan.runs["equal_tokens"]["after"][1]
    settings = settings_of(config, arms_of(config)["after"], job)
    assert settings == {
        "model.init_from": str(Path("runs/sweep/s/final/first-lr1-steps100-seed2")),
        "seed_everything": 3,
    }
    plan, order = trained(config, arms_of(config), failing="first-lr1-steps100-seed2")
    assert "final/after-steps100-seed2" not in order
    assert [job.seed for job in plan.runs["equal_tokens"]["after"]] == [1]
    with pytest.raises(HeadlessError, match="must name an arm that stands before it"):
        replace(config, arms=dict(reversed(arms.items())))


def test_what_is_tuned_after_a_run_that_failed_is_left_out() -> None:
    tuning = Tuning({LR: {"grid": [1, 2]}}, arms={"first": None}, widen=False)
    arms = {"first": {}, "after": {"begin_from": "first"}}
    config = SweepConfig("s", "base.yaml", arms=arms, seeds=[1], tune=tuning)
    plan, order = trained(config, arms_of(config))
    assert order[:2] == ["tune/first-steps100-seed0", "tune/after-lr1-steps100-seed0"]
    assert order[-2:] == ["final/first-steps100-seed1", "final/after-lr1-steps100-seed1"]
    _, order = trained(config, arms_of(config), failing="tune/first")
    assert order == ["tune/first-steps100-seed0", "final/first-steps100-seed1"]


def test_an_arm_of_which_every_run_fails_is_left_out() -> None:
    config = SweepConfig("s", "b", arms={"a": {}}, tune=Tuning({LR: {"grid": [1, 2]}}, widen=False))
    plan, order = trained(config, arms_of(config), failing="tune")
    assert len(order) == 2
    assert plan.runs["equal_tokens"]["a"] == []


def test_a_source_that_was_pruned_ends_what_waits_for_it() -> None:
    tuning = Tuning({LR: {"grid": [1, 2]}}, max_steps=50, widen=False)
    arms = {"first": {}, "after": {"begin_from": "first"}}
    config = SweepConfig("s", "b", arms=arms, seeds=[1], tune=tuning)
    _, order = trained(config, arms_of(config))
    source = "tune/first-lr1-steps100-seed0"
    assert source in order
    results = {place: Result("complete", 4.0) for place in order if "after" not in place}
    results[source] = Result("pruned", 5.0)
    assert make_plan(config, arms_of(config), results).complete


def test_the_plan_of_an_earlier_start_leaves_new_arms_out() -> None:
    arms = {"a": {}, "new": {}}
    config = SweepConfig("s", "b", arms=arms, budgets=["equal_tokens", "equal_seconds"])
    known = {"a": arms_of(config)["a"]}
    assert {job.arm for job in make_plan(config, known, {}).jobs} == {"a"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arms": {"a": {"begin_from": "a"}}}, "a: begin_from must name an arm that stands before"),
        ({"arms": {"tuned": {}}}, "tuned: a run is tagged with its arm"),
        ({"arms": {"a" * 65: {}}}, "at most 64 characters"),
        ({"arms": {"a": None}}, "arms: a must be settings by name"),
        ({"vary": {"size": {"small": 96}}}, "vary: size: small must be settings by name"),
        ({"tune": Tuning(arms={"a": 3})}, "tune: arms: a must be parameters or null"),
        ({"tune": Tuning({LR: {"grid": [1e-3, 1.0000000001e-3]}})}, "cannot tell apart"),
        ({"tune": Tuning({LR: {"low": "a", "high": 1}}, sampler="tpe")}, "must be {grid"),
        (
            {"tune": Tuning({LR: {"low": 0, "high": 1, "log": True}}, sampler="tpe")},
            "must be {grid",
        ),
        (
            {"vary": {"a": {"ce": {}, "ce-tied": {}}, "b": {"tied-muon": {}, "muon": {}}}},
            "two combinations of the axes have one name",
        ),
    ],
)
def test_what_no_sweep_can_be_is_refused_in_a_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadlessError, match=message):
        SweepConfig("s", "b", **({"arms": {"a": {}}} | wrong))


def test_another_base_is_refused_and_the_runs_keep_theirs(tmp_path: Path) -> None:
    part, other = tmp_path / "part.yaml", tmp_path / "other.yaml"
    part.write_text("model: {optimizer: {lr: 1e-3}}\n")
    other.write_text("model: {optimizer: {lr: 0.9}}\n")
    config = SweepConfig("s", {"parts": [str(part)]}, arms={"a": {}}, root=tmp_path)
    config.write_base()
    (config.directory / "arms.json").write_text("{}")
    before = {file: file.read_text() for file in config.directory.rglob("*.yaml")}
    with pytest.raises(HeadlessError, match="was begun with another base"):
        replace(config, base={"parts": [str(other)]}).write_base()
    part.write_text("model: {optimizer: {lr: 0.9}}\n")
    with pytest.raises(HeadlessError, match="was begun with another base"):
        config.write_base()
    assert {file: file.read_text() for file in config.directory.rglob("*.yaml")} == before
    assert any("lr: 1e-3" in text for text in before.values())
    with pytest.raises(HeadlessError, match="base: there is no part nothing.yaml"):
        replace(config, base="nothing.yaml").write_base()
