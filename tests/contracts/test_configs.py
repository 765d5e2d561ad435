"""Every shipped recipe builds: parsed, types checked, model and data made."""

from pathlib import Path

import pytest
import torch
from config_files import read_config

from headless.data.prepare import prepare
from headless.errors import HeadlessError
from headless.models.backbone import num_parameters
from headless.training.assembly import build
from headless.training.options import with_parts

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path for path in ROOT.glob("configs/*/*.yaml") if "headless pretrain" in path.read_text()[:19]
)
PARTS = sorted(
    path
    for kind in ("backbone", "data", "objective", "optimizer")
    for path in ROOT.glob(f"configs/{kind}/*.yaml")
)


@pytest.fixture(scope="module")
def masked_dataset(text_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What masked models are trained on."""
    output = tmp_path_factory.mktemp("masked") / "data"
    prepare([str(text_files)], output, vocab_size=320, mask_token="[MASK]")
    return output


def test_found_them() -> None:
    assert len(RECIPES) >= 14


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_builds(path: Path, dataset: Path, masked_dataset: Path, tmp_path: Path) -> None:
    task = read_config(path)["data"].get("task")
    data = masked_dataset if task == "masked" else dataset
    more = ["--data.sequence_length", "16", "--data.batch_size", "2", "--data.num_workers", "0"]
    place = ["--run.root", str(tmp_path), "--trainer.accelerator", "cpu"]
    with torch.device("meta"):  # the shapes of a large model without its memory
        cli = build(["--config", str(path), "--data.path", str(data), *more, *place])
    assert cli.run.name
    assert cli.model.objective.describe()
    assert num_parameters(cli.model) > 1e5
    assert not list(tmp_path.iterdir())  # building writes nothing
    written = cli.config.as_dict()  # what config.yaml of the run is made of
    assert "parts" not in written
    assert covers(written, read_config(path), changed={"data", "run.root", "trainer.accelerator"})


def covers(whole: dict, part: dict, changed: set[str], above: str = "") -> bool:
    """Whether each setting of a part stands in the whole, but for those that were changed."""
    for key, value in part.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and name not in changed:
            if not covers(whole[key], value, changed, f"{name}."):
                return False
        elif name not in changed and key != "class_path" and list_of(whole[key]) != value:
            return False
    return True


def list_of(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_opens_with_how_to_run_it(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert path.read_text().startswith(f"# headless pretrain --config {relative}\n")


def test_every_part_is_used() -> None:
    used = {
        Path(w.split("=")[1]).resolve() for r in RECIPES for w in with_parts(["--config", str(r)])
    }
    assert len(PARTS) >= 10
    assert not set(PARTS) - used


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_two_of_a_pair_differ_in_the_objective_only(path: Path) -> None:
    other = path.with_name(path.name.replace("vanilla", "headless"))
    configs = [read_config(path), read_config(other)]
    for config in configs:
        del config["model"]["objective"]
        del config["run"]
    assert configs[0] == configs[1]


def test_parts_lie_beside_a_config_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    files = {
        "first.yaml": "model: {objective: {class_path: A, init_args: {a: 1}}, compile: true}",
        "inner/second.yaml": "parts: [third.yaml]\nmodel: {objective: {class_path: B}}",
        "inner/third.yaml": "data: {batch_size: 3}",
        "inner/mine.yaml": "parts: [second.yaml]\ndata: {batch_size: 4}",
        "all.yaml": "parts: [first.yaml, inner/mine.yaml]",
        "inner/round.yaml": "parts: [round.yaml]",
        "inner/lost.yaml": "parts: [nowhere.yaml]",
        "inner/odd.yaml": "parts: first.yaml",
        "inner/far.yaml": "parts: [first.yaml]",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    wanted = {
        "model": {"objective": {"class_path": "B"}, "compile": True},
        "data": {"batch_size": 4},
    }
    assert read_config(tmp_path / "all.yaml") == wanted
    monkeypatch.chdir(tmp_path)
    assert read_config("inner/far.yaml")["model"]["compile"]
    for name, message in {
        "round": "is a part of itself",
        "lost": "there is no part inner/nowhere.yaml",
        "odd": "parts must be a list of config files, got 'first.yaml'",
    }.items():
        with pytest.raises(HeadlessError, match=message):
            with_parts([f"--config=inner/{name}.yaml"])


def test_a_config_changes_one_setting_of_the_objective_of_its_part(
    dataset: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"parts: [{ROOT}/configs/demo/headless.yaml]\n"
        "model: {objective: {init_args: {temperature: 2.0}}}"
    )
    place = ["--data.path", str(dataset), "--trainer.accelerator", "cpu"]
    assert build(["--config", str(mine), *place]).model.objective.temperature == 2.0
