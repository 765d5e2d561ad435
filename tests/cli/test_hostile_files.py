"""No file ends in a traceback: any of a run or of its data is damaged in any way."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_hostile_configs import VALUES, as_many

from headless.cli.main import main

WAYS = ["value"] * 6 + ["flip", "cut", "empty", "gone", "directory", "deep", "type", "not-utf8"]


@pytest.fixture(scope="module")
def whole(
    text_files: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run that was trained for two steps, and its data, which each example copies."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(dataset, root / "data")
    arguments = [
        *("--run.name=run", f"--run.root={root}", "--run.wandb=disabled"),
        *("--model.objective=ContrastiveWeightTying", "--model.backbone.model_type=gpt_neox"),
        *("--model.backbone.hidden_size=16", "--model.backbone.num_attention_heads=2"),
        *("--model.backbone.num_hidden_layers=1", "--model.backbone.max_position_embeddings=32"),
        *(f"--data.path={root / 'data'}", "--data.sequence_length=16", "--trainer.max_steps=2"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        *("--laboratory.enabled=false", "--samples.max_new_tokens=2"),
    ]
    assert main(["pretrain", *arguments]) == 0
    return root / "run", root / "data"


def changed(data: st.DataObject, value: Any) -> Any:
    """One value inside of another replaced."""
    if isinstance(value, dict) and value:
        key = data.draw(st.sampled_from(sorted(value)))
        return {**value, key: changed(data, value[key])}
    if isinstance(value, list) and value:
        place = data.draw(st.integers(0, len(value) - 1))
        return [*value[:place], changed(data, value[place]), *value[place + 1 :]]
    return data.draw(VALUES)


def damage(data: st.DataObject, path: Path) -> str:
    """Damage a file."""
    way, content = data.draw(st.sampled_from(WAYS)), path.read_bytes()
    if way == "value" and path.suffix in (".json", ".yaml"):
        value = changed(data, yaml.safe_load(content))
        path.write_text(json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value))
    elif way == "value" and path.suffix == ".jsonl":
        first, *rest = content.splitlines(keepends=True)
        path.write_bytes(json.dumps(changed(data, json.loads(first))).encode() + b"\n")
        path.write_bytes(path.read_bytes() + b"".join(rest))
    elif way == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    elif way in ("gone", "directory"):
        path.unlink()
        if way == "directory":
            path.mkdir()
    elif way in ("empty", "deep", "type", "not-utf8"):
        other = {
            "empty": b"",
            "deep": b"[" * 100_000,
            "type": b"[3]",
            "not-utf8": b"\xff" + content,
        }
        path.write_bytes(other[way])
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    return way


@as_many(examples=20)
@given(data=st.data())
def test_no_file_ends_in_a_traceback(
    data: st.DataObject,
    whole: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path_factory.mktemp("damaged")
    for source in whole:
        shutil.copytree(source, place / source.name)
    files = sorted(p for p in place.rglob("*") if p.is_file())
    path = data.draw(st.sampled_from([p for p in files if p.suffix != ".lock"]))
    way = damage(data, path)
    run = str(place / "run")
    commands = {
        "compare": ["compare", run, "--output", str(place / "report")],
        "validate": ["validate", run, "--data.path", str(place / "data")],
        "export": ["export", "--checkpoint", run, "--output", str(place / "model")],
        "generate": ["generate", "--model", run, "--prompt", "the", "--max_new_tokens", "2"],
    }
    is_of_data = path.is_relative_to(place / "data")
    command = "validate" if is_of_data else data.draw(st.sampled_from(sorted(commands)))
    capsys.readouterr()
    code = main(commands[command])
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("headless: error")]
    shutil.rmtree(place)
    assert (code, len(lines)) in ((0, 0), (2, 1)), (command, path.name, way, lines)
    assert "traceback is in" not in "".join(lines), (command, path.name, way, lines)
