"""Every shipped recipe builds: parsed, types checked, model and data made."""

from pathlib import Path

import pytest
import torch

from headless.cli.pretrain import build

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("configs/pretrain/*.yaml"), *ROOT.glob("configs/demo/[!d]*.yaml")])


def test_found_them() -> None:
    assert len(RECIPES) >= 8


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_builds(path: Path, dataset: Path, tmp_path: Path) -> None:
    more = ["--data.sequence_length", "16", "--data.batch_size", "2", "--data.num_workers", "0"]
    place = ["--run.root", str(tmp_path), "--trainer.accelerator", "cpu"]
    with torch.device("meta"):  # the shapes of a large model without its memory
        cli = build(["--config", str(path), "--data.path", str(dataset), *more, *place])
    assert cli.run.name
    assert cli.model.objective.describe()
    assert cli.model.num_parameters() > 1e5
    assert not list(tmp_path.iterdir())  # building writes nothing


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_opens_with_how_to_run_it(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert path.read_text().startswith(f"# headless pretrain --config {relative}\n")


@pytest.mark.parametrize("name", ["demo", "pythia-70m", "pythia-160m", "gpt2-small"])
def test_the_two_of_a_pair_differ_in_the_objective_only(name: str) -> None:
    import yaml

    where = "demo" if name == "demo" else "pretrain"
    prefix = "" if name == "demo" else f"{name}-"
    configs = [
        yaml.safe_load((ROOT / f"configs/{where}/{prefix}{kind}.yaml").read_text())
        for kind in ("vanilla", "headless")
    ]
    for config in configs:
        del config["model"]["objective"]
        del config["run"]
    assert configs[0] == configs[1]
