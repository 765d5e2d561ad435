"""No config ends in a traceback: any leaf of the shipped ones is replaced by anything."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_files import read_config
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import headless.cli.pretrain
from headless.cli.main import main
from headless.data.prepare import prepare

SHIPPED = {
    path.stem: read_config(path)
    for path in [Path("configs/demo/headless.yaml"), *sorted(Path("configs/pretrain").glob("*-*"))]
}
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
EVERYTHING = {  # what the shipped ones leave to its default
    "model": {
        "objective": {
            "init_args": {"num_sampled": 0, "duplicates": "count", "negatives": "microbatch"}
        },
        "backbone": {"extra": {}, "attn_implementation": "sdpa"},
        "schedule": {"decay_fraction": 0.2},
        "init_head": "random",
        "freeze_backbone": False,
    },
    "data": {"val_batch_size": 2, "verify": "size", "mask_probability": 0.15},
    "trainer": {"precision": None, "strategy": "auto", "callbacks": [], "logger": None}
    | {"plugins": None, "profiler": None, "num_nodes": 1, "max_epochs": None, "max_time": None}
    | {"limit_train_batches": None, "overfit_batches": 0.0, "deterministic": None},
    "run": {"project": "headless", "wandb": "disabled", "resume": False, "overwrite": False},
    "throughput": {"every_n_steps": 3, "warmup_steps": 1, "peak_flops": None},
    "memory": {"every_n_steps": 3},
    "laboratory": {"enabled": True, "num_sequences": 2, "at_end": "nothing", "tokens": 99},
    "samples": {"max_new_tokens": 3, "temperature": 0.8, "top_k": 5, "seed": 0},
}
NAN = float("nan")
SCALARS = [None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 10**9, -(10**18), 10**30, NAN]
SCALARS += [float("inf"), -float("inf"), -0.5, 0.0, 1e-300, 0.5, 1.5, 1e30]
WORDS = ["", "x", "auto", "none", "\u0000", "\ud7ff\U0001f600", "../..", "/", "a/b", "a" * 300]
WORDS += ["-1", "1e9", "nan", "os.system", "torch.nn.Linear", "no.such.Thing", "{", "[1", "a: b"]
WORDS += ["CrossEntropy", "Combined", "bert", "gpt2", "qwen3", "LambdaCallback", "RichProgressBar"]
DEEP: Any = 1
for _ in range(90):
    DEEP = [DEEP]
SHAPES: list[Any] = [[], {}, [1], [NAN, 2], [2.0, 3.0], ["x", None], {"a": 1}, {"": {}}, DEEP]
SHAPES += [{"class_path": "CrossEntropy"}, {"class_path": "torch.nn.Linear", "init_args": {}}]
SHAPES += [{"class_path": None}, {"class_path": ["x"]}, {"init_args": {"x": 1}}, [[[]]]]
VALUES = st.sampled_from([*SCALARS, *WORDS, *SHAPES])


def merge(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {
        key: merge(below[key], above[key])
        if key in below and key in above
        else above.get(key, below.get(key))
        for key in [*below, *(key for key in above if key not in below)]
    }


def places(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key, inner ones too."""
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


@pytest.fixture(scope="module")
def datasets(text_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Prepared text for either task."""
    found = {}
    for task, options in (("causal", {}), ("masked", {"mask_token": "[MASK]"})):
        output = tmp_path_factory.mktemp(task) / "data"
        prepare([str(text_files)], output, vocab_size=320, validation_fraction=0.1, **options)  # type: ignore[arg-type]
        found[task] = str(output)
    return found


def tiny(name: str, datasets: dict[str, str], root: Path) -> dict[str, Any]:
    """A shipped config at a size at which a mutated one builds in no time."""
    shipped = SHIPPED[name]
    task = shipped["data"].get("task", "causal")
    small: dict[str, Any] = {
        "model": {"backbone": TINY, "compile": False, "schedule": {"warmup_steps": 1}},
        "data": {"path": datasets[task], "sequence_length": 16, "batch_size": 2, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 2, "precision": "32-true"},
        "run": {"root": str(root)},
    }
    below = copy.deepcopy(EVERYTHING)
    if "tied" in str(shipped["model"]["objective"]) or "Cross" in str(shipped["model"]):
        below["model"]["objective"] = {}
    if task == "causal":
        below["data"].pop("mask_probability", None)
    return copy.deepcopy(merge(merge(below, shipped), small))


def hostile(data: st.DataObject, config: dict[str, Any]) -> dict[str, Any]:
    """One or two of its values replaced, dropped, or joined by an unknown key."""
    for _ in range(data.draw(st.integers(1, 2))):
        *above, key = data.draw(st.sampled_from(sorted(places(config))))
        inner = config
        for step in above:
            inner = inner[step] if isinstance(inner.get(step), dict) else {}
        change = data.draw(st.sampled_from(["set"] * 8 + ["drop", "unknown"]))
        if change == "drop":
            inner.pop(key, None)
        else:
            inner[f"{key}x" if change == "unknown" else key] = data.draw(VALUES)
    return config


def as_many(examples: int) -> settings:
    """As many examples as the suite has time for, the same each time.

    More, and others, by hand: HOSTILE_EXAMPLES=5000 pytest tests/cli/test_hostile…
    """
    asked = os.environ.get("HOSTILE_EXAMPLES")
    return settings(
        max_examples=int(asked or examples),
        derandomize=asked is None,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@as_many(examples=40)
@given(data=st.data())
def test_no_config_ends_in_a_traceback(
    data: st.DataObject,
    datasets: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Up to where training would begin."""
    root = tmp_path_factory.getbasetemp() / "never-made"
    monkeypatch.setattr(headless.cli.pretrain, "fit", lambda cli: cli.run.directory.path)
    config = hostile(data, tiny(data.draw(st.sampled_from(sorted(SHIPPED))), datasets, root))
    path = tmp_path_factory.getbasetemp() / "hostile.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    capsys.readouterr()
    code = main(["pretrain", "--config", str(path)])
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("headless: error")]
    assert (code, len(lines)) in ((0, 0), (2, 1))
    assert "traceback is in" not in "".join(lines), (lines, config)
    assert not root.exists()
