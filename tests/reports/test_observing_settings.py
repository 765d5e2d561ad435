"""Every setting of a run counts in a comparison, but for those that only name, place or watch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_runs import edit_config, edit_json, write_run, write_runs

from headless.reports.fairness import unfair
from headless.reports.groups import (
    Group,
    differing,
    differing_settings,
    observing_differences,
    read_groups,
    recipe,
)
from headless.runs.run import Run
from headless.structured import flatten
from headless.training.assembly import build

DEMO = Path(__file__).parents[2] / "configs/demo/headless.yaml"
LABELS = {"seed_everything", "data.path", "trainer.default_root_dir"}
WATCHES = {
    *("checkpoint", "throughput", "memory", "geometry", "laboratory", "samples"),
    *("data.num_workers", "data.verify", "data.val_batch_size"),
    *("trainer.logger", "trainer.log_every_n_steps", "trainer.enable_autolog_hparams"),
    *("trainer.model_registry", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
    *("trainer.enable_checkpointing", "trainer.num_sanity_val_steps"),
    *("trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
    *("trainer.limit_test_batches", "trainer.limit_predict_batches"),
}


@pytest.fixture(scope="module")
def demo(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with the demo's whole resolved config."""
    arguments = ["--config", str(DEMO), "--data.path", str(dataset), "--trainer.accelerator", "cpu"]
    arguments += ["--run.wandb", "disabled", "--model.backbone.hidden_size", "48"]
    cli = build(arguments)
    text = cli.parser.dump(cli.config, skip_none=False, skip_link_targets=True)
    path = write_run(tmp_path_factory.mktemp("demo"), "headless")
    (path / "config.yaml").write_text(text)
    edit_json(path / "summary.json", dataset_sha256="ef" * 32)
    return Run(path)


def another(value: Any) -> Any:
    """A value that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return value | {"another": 1}
    return f"{value} or another"


def changed(run: Run, key: str) -> Run:
    config = copy.deepcopy(run.config)
    *parents, leaf = key.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[leaf] = another(place[leaf])
    other = Run(run.directory)
    other.config = config
    return other


def test_no_setting_of_the_demo_is_lost(demo: Run) -> None:
    lost = []
    for key in dict(flatten(demo.config)):
        other = changed(demo, key)
        groups = [Group([demo], 0, "a"), Group([other], 1, "b")]
        mark = "different models" if key == "model.init_from" else f"`{key}`: "
        warned = any(mark in warning for warning in unfair(groups))
        root = key.split(".")[0]
        if root == "run" or key in LABELS:
            as_it_should_be = not warned and recipe(other) == recipe(demo)
        elif root in WATCHES or key in WATCHES:
            listed = key in observing_differences(groups)
            as_it_should_be = listed and not warned and recipe(other) == recipe(demo)
        elif key.startswith("model.objective."):  # what is compared
            listed = key in differing_settings(groups)
            as_it_should_be = listed and not warned and recipe(other) != recipe(demo)
        else:
            as_it_should_be = warned and recipe(other) != recipe(demo)
        if not as_it_should_be:
            lost.append(key)
    assert lost == []


def test_what_only_watches_does_not_split_a_recipe(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "headless", seed) for seed in (1, 2)]
    edit_config(runs[1], "laboratory.enabled", False)
    (group,) = read_groups(runs)
    assert observing_differences([group]) == ["laboratory.enabled"]


def test_batches_of_a_step_are_compared_as_a_product(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    edit_config(runs[1], "data.batch_size", 8)
    edit_config(runs[1], "trainer.accumulate_grad_batches", 4)
    assert not any("of an optimizer step" in w for w in unfair(read_groups(runs)))
    edit_config(runs[1], "trainer.devices", 2)
    (found,) = [w for w in unfair(read_groups(runs)) if "of an optimizer step" in w]
    assert "(32, 64 sequences" in found


def test_a_part_of_the_validation_text_grows_with_its_batches(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "headless", seed) for seed in (1, 2)]
    edit_config(runs[1], "data.val_batch_size", 8)
    assert len(read_groups(runs)) == 1
    for run in runs:
        edit_config(run, "trainer.limit_val_batches", 10)
    groups = read_groups(runs)
    assert len(groups) == 2
    assert any("parts of the validation text" in warning for warning in unfair(groups))


def test_what_null_came_to_is_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "headless", seed) for seed in (1, 2)]
    for run in runs:
        edit_config(run, "trainer.precision", None)
        edit_config(run, "trainer.devices", "auto")
        edit_json(run / "environment.json", precision="bf16-mixed", devices=2)
    edit_config(runs[1], "trainer.precision", "bf16-mixed")
    edit_config(runs[1], "trainer.devices", 2)
    assert len(read_groups(runs)) == 1
    edit_json(runs[0] / "environment.json", precision="32-true")
    assert any("precisions" in warning for warning in unfair(read_groups(runs)))


def test_equal_numbers_are_equal_and_left_open_is_missing() -> None:
    one = {"a": 1, "b": [1, 2.0], "c": None, "d": True}
    other = {"a": 1.0, "b": [1.0, 2], "d": 1}
    assert differing([one, other]) == {"d": ["true", "1"]}


def test_other_data_of_the_same_name_is_said(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", seeds=(1,))
    for place, run in enumerate(runs):
        edit_json(run / "summary.json", dataset_sha256=f"{place}" * 64)
    assert any("different data" in warning for warning in unfair(read_groups(runs)))
    config = yaml.safe_load((runs[0] / "config.yaml").read_text())
    assert config["data"]["path"] == "data/demo"
