"""Every shipped recipe builds: parsed, types checked, model and data made."""

from pathlib import Path

import pytest
import torch
import yaml

from headless.data.prepare import prepare
from headless.training.assembly import build

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("configs/pretrain/*.yaml"), *ROOT.glob("configs/demo/[!d]*.yaml")])


@pytest.fixture(scope="module")
def masked_dataset(text_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What masked models are trained on."""
    output = tmp_path_factory.mktemp("masked") / "data"
    prepare([str(text_files)], output, vocab_size=320, mask_token="[MASK]")
    return output


def test_found_them() -> None:
    assert len(RECIPES) >= 8


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_builds(path: Path, dataset: Path, masked_dataset: Path, tmp_path: Path) -> None:
    task = yaml.safe_load(path.read_text())["data"].get("task")
    data = masked_dataset if task == "masked" else dataset
    more = ["--data.sequence_length", "16", "--data.batch_size", "2", "--data.num_workers", "0"]
    place = ["--run.root", str(tmp_path), "--trainer.accelerator", "cpu"]
    with torch.device("meta"):  # the shapes of a large model without its memory
        cli = build(["--config", str(path), "--data.path", str(data), *more, *place])
    assert cli.run.name
    assert cli.model.objective.describe()
    assert cli.model.num_parameters() > 1e5
    assert not list(tmp_path.iterdir())  # building writes nothing


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_it_opens_with_how_to_run_it(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert path.read_text().startswith(f"# headless pretrain --config {relative}\n")


PAIRS = ["demo", "pythia-70m", "pythia-160m", "gpt2-small"]
PAIRS += ["bert-base", "bert-small", "distilbert-multilingual"]


@pytest.mark.parametrize("name", PAIRS)
def test_the_two_of_a_pair_differ_in_the_objective_only(name: str) -> None:
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
