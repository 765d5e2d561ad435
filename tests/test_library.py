"""The library: every verb by import, on a tiny corpus, in one process that stays as it was."""

import logging
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headless
from headless.errors import HeadlessError

LOGGERS = ("", "lightning.pytorch", "lightning.fabric", "transformers", "wandb", "datasets")


def config(dataset: Path, root: Path, name: str) -> dict[str, Any]:
    return {
        "seed_everything": 3,
        "run": {"name": name, "root": str(root), "wandb": "disabled"},
        "model": {
            "objective": {"class_path": "ContrastiveWeightTying"},
            "backbone": {
                **{"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2},
                **{"num_attention_heads": 2, "max_position_embeddings": 64},
            },
            "schedule": {"warmup_steps": 1},
            "compile": False,
        },
        "data": {"path": str(dataset), "sequence_length": 16, "batch_size": 4, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "max_steps": 4, "val_check_interval": 2},
        "laboratory": {"enabled": False},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(dataset: Path, root: Path) -> headless.Run:
    return headless.pretrain(config(dataset, root, "run"))


@pytest.fixture(scope="module")
def model(run: headless.Run) -> headless.LanguageModel:
    return run.model()


def state() -> tuple:
    return (
        list(warnings.filters),
        {name: logging.getLogger(name).level for name in LOGGERS},
        {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )


@pytest.fixture
def untouched(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The process before and after a test, which prints nothing."""
    capfd.readouterr()
    before = state()
    yield
    changed = [i for i, (old, new) in enumerate(zip(before, state(), strict=True)) if old != new]
    assert not changed
    assert tuple(capfd.readouterr()) == ("", "")


def test_importing_it_imports_nothing() -> None:
    code = (
        "import sys; known = set(sys.modules); import headless; "
        "print(sorted(n for n in set(sys.modules) - known if n.startswith(('headless.', 'torch', "
        "'numpy', 'yaml', 'lightning', 'transformers'))), "
        "set(headless.__all__) <= set(dir(headless)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert shown == "[] True\n"


def test_every_name_is_there() -> None:
    verbs = "prepare pretrain load evaluate generate export finetune neighbors analyze compare"
    for name in f"{verbs} validate tune_head Run LanguageModel objectives geometry".split():
        assert name in headless.__all__
        assert getattr(headless, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        headless.pretrian  # noqa: B018
    stub = Path(headless.__file__).with_suffix(".pyi").read_text()
    assert all(f" as {name}\n" in stub for name in headless.__all__)


@pytest.mark.usefixtures("untouched")
def test_prepare(text_files: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    made = headless.prepare(
        str(text_files),
        tmp_path / "data",
        vocab_size=300,
        progress=lambda phase, done, total: seen.append(phase),
    )
    assert made.manifest.vocab_size == 300
    assert {"reading", "training the tokenizer", "tokenising"} <= set(seen)


@pytest.mark.usefixtures("untouched")
def test_pretrain_from_a_mapping_with_changes(dataset: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run = headless.pretrain(
        config(dataset, tmp_path, "a"),
        {
            "model.objective.temperature": 2.0,
            "model": {"optimizer": {"lr": 1e-2}},
            "run.tags": ["x", "y"],
            "samples.prompts": ["the king: sees"],
        },
        progress=lambda *point: seen.append(point),
    )
    written = run.config
    assert written["model"]["objective"]["init_args"]["temperature"] == 2.0
    assert written["model"]["optimizer"]["lr"] == 1e-2
    assert written["run"]["tags"] == ["x", "y"]
    assert written["samples"]["prompts"] == ["the king: sees"]
    assert run.summary["steps"] == 4
    assert ("a, epoch 0", 4, 4) in seen
    frame = run.metrics()
    assert frame["val/nll"].notna().sum() == 2
    assert run.directory.path == tmp_path / "a"
    again = headless.pretrain(
        str(run.directory.config), {"run.name": "b", "trainer.max_steps": 2}
    )  # a file, too
    assert again.summary["steps"] == 2


@pytest.mark.usefixtures("untouched")
def test_a_wrong_setting_is_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadlessError, match="did you mean 'model.optimizer.lr'"):
        headless.pretrain(config(dataset, tmp_path, "a"), {"model.optimizer.lrr": 1})
    assert not list(tmp_path.iterdir())


def test_progress_is_shown_where_it_is_asked_for(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    headless.pretrain(config(dataset, tmp_path, "a"), progress=True)
    shown = capsys.readouterr()
    assert "headless: gpt_neox: " in shown.err
    assert "a, epoch 0: 4 of 4" in shown.err
    assert shown.out == ""


@pytest.mark.usefixtures("run", "untouched")
def test_validate(run: headless.Run) -> None:
    scores = headless.validate(run.directory.path, {"data.val_batch_size": 3})
    assert scores["val/nll"] == pytest.approx(run.summary["last"]["val/nll"], rel=1e-4)


@pytest.mark.usefixtures("model", "untouched")
def test_what_a_model_does(model: headless.LanguageModel, tmp_path: Path) -> None:
    ids_BT = torch.tensor([model.tokenizer.encode("the king sees")])
    states = model.hidden_states(ids_BT)
    assert model.logits(ids_BT).shape == (*ids_BT.shape, len(model.tokenizer))
    assert [tuple(s.shape) for s in states] == 3 * [(*ids_BT.shape, 32)]
    assert model.generate("the king", max_new_tokens=3, seed=1)
    assert len(model.neighbors(5, k=2)[0]) == 2
    model.export(tmp_path / "exported")
    opened = headless.load(tmp_path / "exported")
    torch.testing.assert_close(opened.logits(ids_BT), model.logits(ids_BT), rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("run", "untouched")
def test_generate_and_export(run: headless.Run, tmp_path: Path) -> None:
    place = run.directory.path
    (record,) = headless.generate(place, "the king", max_new_tokens=3, seed=1)
    assert record["text"] == headless.load(place).generate("the king", max_new_tokens=3, seed=1)
    facts = headless.export(place, tmp_path / "model")
    assert facts["head"] == "calibrated"


@pytest.mark.usefixtures("model", "untouched")
def test_evaluate_and_neighbors(model: headless.LanguageModel, dataset: Path) -> None:
    results = headless.evaluate(model, f"text:{dataset}", device="cpu")
    assert results.frame()["value"].notna().all()
    assert "bits_per_byte" in results._repr_html_()
    assert headless.neighbors(model, token_id=5, k=2)["tokens"]


@pytest.mark.usefixtures("run", "untouched")
def test_finetune(run: headless.Run, tmp_path: Path) -> None:
    rows = "".join(f"the {w} number {i}\t{w}\n" for i in range(10) for w in ("king", "sea"))
    (tmp_path / "rows.tsv").write_text(f"text\tlabel\n{rows}")
    scores = headless.finetune(
        run.directory.path,
        str(tmp_path / "rows.tsv"),
        tmp_path / "tuned",
        epochs=1,
        batch_size=4,
        accelerator="cpu",
    )
    assert scores["summary"]


@pytest.mark.usefixtures("run", "untouched")
def test_tune_head(run: headless.Run) -> None:
    tuned = headless.tune_head(run.directory.path, {"run.name": "tuned"}, steps=2, probe=True)
    assert tuned.config["model"]["freeze_backbone"] is True
    assert tuned.summary["steps"] == 2


@pytest.mark.usefixtures("model", "untouched")
def test_analyze_and_compare(model: headless.LanguageModel, run: headless.Run, tmp_path) -> None:
    inside = headless.analyze(
        model, analyses=["anisotropy"], preset="cheap", tokens=256, random_twin=False, device="cpu"
    )
    assert inside.page is None
    assert inside.findings[0].title in inside._repr_html_()
    page = inside.save(tmp_path / "inside", formats=["png"])
    assert page.is_file()
    assert (tmp_path / "inside/analysis.json").is_file()
    comparison = headless.compare([run.directory.path])
    assert "run" in comparison._repr_html_()
    assert comparison.save(tmp_path / "report").is_file()


def test_objectives_and_geometry() -> None:
    x_ND = torch.randn(64, 8)
    assert headless.geometry.effective_rank(x_ND) > 4
    assert headless.objectives.ContrastiveWeightTying(temperature=2.0).describe()
