"""`headless evaluate` on runs, on exports and on foreign models: results, and bad input."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headless.cli.main import main
from headless.errors import HeadlessError
from headless.runs.evaluations import Evaluation, read_evaluations

PAIRS = [
    {"sentence_good": f"the {a} loves a rose.", "sentence_bad": f"the loves {a} rose a.", "UID": u}
    for a, u in [("king", "x"), ("ghost", "y"), ("storm", "x"), ("night", "y"), ("sea", "x")]
]
WORDS = [{"text": f"{word} fears the king"} for word in ("no man", "my lord", "old Lear")]
CHOICES = [
    {"query": "no man", "choices": ["fears the sea", "sea the fears"], "gold": gold}
    for gold in (0, 1, 0)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind."""
    directory = tmp_path_factory.mktemp("tasks")
    for name, records in {"pairs": PAIRS, "words": WORDS, "choices": CHOICES}.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (directory / f"{name}.jsonl").write_text(lines)
    (directory / "text.txt").write_text("the king loves a rose; no man sees old Lear. " * 5)
    return directory


@pytest.fixture
def train(
    run_arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Path]:
    """Train a run of a few steps."""

    def trained(name: str, *more: str, objective: str = "ContrastiveWeightTying") -> Path:
        assert main(["pretrain", *run_arguments(name, *more, objective=objective)]) == 0
        capsys.readouterr()
        return tmp_path / "runs" / name

    return trained


@pytest.fixture
def masked_run(
    text_files: Path, tmp_path: Path, run_arguments, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A masked language model."""
    from headless.data.prepare import prepare

    prepare(
        [str(text_files)],
        tmp_path / "masked-data",
        vocab_size=320,
        mask_token="[MASK]",
        validation_fraction=0.1,
    )
    arguments = run_arguments("masked", "--data.task", "masked", objective="CrossEntropy")
    arguments += ["--data.path", str(tmp_path / "masked-data")]
    arguments += ["--model.backbone.model_type", "bert"]
    assert main(["pretrain", *arguments]) == 0
    capsys.readouterr()
    return tmp_path / "runs" / "masked"


def results(directory: Path) -> list[Evaluation]:
    return read_evaluations(directory / "evaluations.jsonl")


def test_a_run_on_every_kind(
    train, files: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("run")
    tasks = f"lambada:{files}/words.jsonl,blimp:{files}/pairs.jsonl,choice:{files}/choices.jsonl"
    tasks += f",text:{files}/text.txt,text:{dataset}"
    arguments = ["evaluate", "--model", str(run), "--tasks", tasks, "--device", "cpu"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "calibrated head" in printed
    assert str(run / "evaluations.jsonl") in printed
    found = results(run)
    assert [one.kind for one in found] == ["lambada", "blimp", "choice", "text", "text"]
    assert [one.items for one in found[:4]] == [3, 5, 3, 1]
    assert {(one.step, one.head, one.model) for one in found} == {(12, "calibrated", "run")}
    assert set(found[1].subsets) == {"x", "y"}
    assert all(one.metrics and len(one.data_sha256) == 64 for one in found)
    assert set(found[0].versions) == {"headless", "torch", "transformers"}
    # The same again, under another head: added, and the older ones are there.
    assert main([*arguments, "--head", "tied", "--limit", "2"]) == 0
    assert results(run)[:5] == found
    assert {(one.head, one.items) for one in results(run)[5:8]} == {("tied", 2)}
    assert results(run)[8].metrics["nll"] != found[3].metrics["nll"]
    # And in the comparison.
    vanilla = train("vanilla", objective="CrossEntropy")
    assert main(["evaluate", "--model", str(vanilla), "--tasks", f"blimp:{files}/pairs.jsonl"]) == 0
    report = tmp_path / "report"
    assert main(["compare", str(run), str(vanilla), "--output", str(report)]) == 0
    html = (report / "report.html").read_text()
    assert "Zero-shot" in html
    assert "blimp: pairs.jsonl, 5 items" in html
    assert "trained head, 1 run" in html


def test_nll_of_a_text_is_what_training_saw(train, dataset: Path, capsys) -> None:
    """The validation text in one piece a document: the same model, nearly the same tokens."""
    run = train("run")
    assert main(["evaluate", "--model", str(run), "--tasks", f"text:{dataset}"]) == 0
    (found,) = results(run)
    last = json.loads((run / "summary.json").read_text())["last"]
    assert found.metrics["nll"] == pytest.approx(last["val/nll"], rel=0.02)


def test_a_checkpoint_and_a_config_file(train, files: Path, tmp_path: Path, capsys) -> None:
    run = train("run", "--checkpoint.every_n_steps", "6", "--checkpoint.keep", "true")
    config = tmp_path / "tasks.yaml"
    config.write_text(json.dumps({"tasks": [f"blimp:{files}/pairs.jsonl"], "batch_size": 2}))
    checkpoints = sorted((run / "checkpoints").glob("*.ckpt"))
    for checkpoint in checkpoints:
        assert main(["evaluate", "--config", str(config), "--model", str(checkpoint)]) == 0
    assert len(checkpoints) > 1
    assert {one.step for one in results(run)} == {6, 12}


def test_an_export_keeps_its_results_and_a_foreign_model_does_not(
    train, files: Path, tmp_path: Path, capsys
) -> None:
    run, exported = train("run"), tmp_path / "exported"
    assert main(["export", "--checkpoint", str(run), "--output", str(exported)]) == 0
    task = ["--tasks", f"lambada:{files}/words.jsonl", "--device", "cpu"]
    for place in (run, exported):
        assert main(["evaluate", "--model", str(place), *task]) == 0
    (of_run,), (of_export,) = results(run), results(exported)
    assert of_export.head == "own"
    assert of_export.step is None
    assert of_export.data_sha256 == of_run.data_sha256
    assert of_export.metrics["perplexity"] == pytest.approx(of_run.metrics["perplexity"], rel=1e-4)
    foreign = tmp_path / "foreign"
    shutil.copytree(exported, foreign)
    (foreign / "headless.json").unlink()
    (foreign / "SHA256SUMS").unlink()
    (foreign / "evaluations.jsonl").unlink()
    output = tmp_path / "deep" / "results.jsonl"
    capsys.readouterr()
    assert main(["evaluate", "--model", str(foreign), *task, "--output", str(output)]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert not (foreign / "evaluations.jsonl").exists()
    assert read_evaluations(output)[0].metrics == of_export.metrics


def test_a_file_of_results_is_replaced_only_when_asked(train, files: Path, tmp_path, capsys):
    output = tmp_path / "results.jsonl"
    output.write_text("mine")
    arguments = ["--model", str(train("run")), "--tasks", f"blimp:{files}/pairs.jsonl"]
    arguments += ["--output", str(output)]
    assert "--overwrite true" in fails(arguments, capsys)
    assert output.read_text() == "mine"
    assert main(["evaluate", *arguments, "--overwrite", "true"]) == 0
    assert len(read_evaluations(output)) == 1


def test_a_masked_model_does_minimal_pairs(masked_run: Path, files: Path, capsys) -> None:
    arguments = ["--model", str(masked_run), "--tasks", f"blimp:{files}/pairs.jsonl"]
    assert main(["evaluate", *arguments]) == 0
    (found,) = results(masked_run)
    assert found.settings["score"] == "pseudo-log-likelihood"
    arguments[-1] = f"blimp:{files}/pairs.jsonl,text:{files}/text.txt"
    assert "it can do blimp, not text" in fails(arguments, capsys)
    assert results(masked_run) == [found]  # nothing was begun


# -- bad input ----------------------------------------------------------------------------------


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command; the one line that it complains with."""
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("headless: error:")]) == 1
    return lines[-1]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("lamb:x.jsonl", "did you mean 'lambada'?"),
        ("x.jsonl", "a task is written kind:source"),
        ("blimp:", "names no source: write blimp:FILE"),
        ("", "name a task"),
        ("blimp:nowhere.jsonl", "there is no nowhere.jsonl"),
        ("text:nowhere.txt", "there is no nowhere.txt"),
        ("harness:nowhere.yaml", "nowhere.yaml"),
        ("blimp:org/name-that-is-not-there", "datasets cannot load it"),
    ],
)
def test_tasks_that_are_none(task: str, message: str, capsys) -> None:
    line = fails(["--model", "nowhere", "--tasks", task], capsys)
    assert message in line or (task.startswith("harness") and "not installed" in line)


@pytest.mark.parametrize(
    ("kind", "lines", "message"),
    [
        ("blimp", "", "is empty"),
        ("lambada", "\n\n", "is empty"),
        ("lambada", '{"text": "ends here "}', "is empty"),
        ("blimp", "{", "a.jsonl:1 is not JSON"),
        ("blimp", "[1]", "a.jsonl:1 is no JSON object"),
        ("lambada", '{"txt": "a b"}', "has no field 'text' (it has txt): rename 'txt'"),
        ("lambada", '{"text": 3}', "the field 'text' is int, not text"),
        ("blimp", '{"good": "a", "bad": "b"}', "has no field 'sentence_good' (it has good, bad)"),
        ("blimp", '{"sentence_good": "a", "sentence_bads": "b"}', "rename 'sentence_bads'"),
        ("blimp", '{"sentence_good": "a", "sentence_bad": " "}', "'sentence_bad' is blank"),
        ("choice", '{"query": "a", "choices": ["b"], "gold": 0}', "at least two"),
        ("choice", '{"query": "a", "choices": ["b", ""], "gold": 0}', "not blank"),
        ("choice", '{"query": "a", "choices": ["b", "c"], "gold": 2}', "2 is out of range"),
        ("choice", '{"query": "a", "choices": ["b", "c"], "gold": -1}', "its place, 0 to 1"),
        ("choice", '{"query": "a", "choices": ["b", "c"], "answer": "d"}', "'d' is out of range"),
        ("choice", '{"query": "a", "choices": ["b", "c"]}', "no field 'gold' or 'answer'"),
        ("text", '{"content": "a"}', "has no field 'text'"),
    ],
)
def test_items_that_are_none(tmp_path: Path, kind: str, lines: str, message: str, capsys) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines + "\n" if lines else "")
    assert message in fails(["--model", "nowhere", "--tasks", f"{kind}:{path}"], capsys)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--limit", "0"], "limit must be at least 1"),
        (["--batch_size", "0"], "batch_size must be at least 1"),
        (["--head", "trained"], "not trained"),
        (["--head", "calibratd"], "calibratd"),
        (["--max_length", "1"], "max_length must be at least 2"),
        (["--max_length", "33"], "more than the 32 positions"),
        (["--stride", "0"], "stride must be in 1 to max_length 32, got 0"),
        (["--device", "toaster"], "toaster"),
        (["--max_lenght", "8"], "did you mean 'max_length'?"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_options_out_of_range(train, files: Path, option, message: str, capsys) -> None:
    run = train("run")
    arguments = ["--model", str(run), "--tasks", f"text:{files}/text.txt", *option]
    assert message in fails(arguments, capsys)
    assert not (run / "evaluations.jsonl").exists()


def test_items_that_do_not_fit_and_a_damaged_file(train, files, tmp_path: Path, capsys) -> None:
    run = train("run")
    long = tmp_path / "long.jsonl"
    record: dict[str, Any] = {"sentence_good": "a rose " * 40, "sentence_bad": "a"}
    long.write_text(json.dumps(record) + "\n")
    arguments = ["--model", str(run), "--tasks"]
    assert "none of the 1 items fits into the 32 tokens" in fails(
        [*arguments, f"blimp:{long}"], capsys
    )
    (run / "evaluations.jsonl").write_text("no\n")
    line = fails([*arguments, f"blimp:{files}/pairs.jsonl"], capsys)
    assert "evaluations.jsonl, line 1 is damaged" in line


def test_what_a_directory_of_text_holds_besides_is_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.TXT").write_text("the king loves a rose")
    (tmp_path / "picture.png").write_bytes(b"x")
    model = str(tmp_path / "none")
    assert main(["evaluate", "--model", model, "--tasks", f"text:{tmp_path}"]) == 2
    said, error = capsys.readouterr().err.splitlines()
    assert "1 left out (.png: 1)" in said
    assert "is no model" in error


def test_lost_text_is_said_beside_bits_per_byte(capsys: pytest.CaptureFixture[str]) -> None:
    from headless.cli.evaluate import show

    metrics: dict[str, float | None] = {"bits_per_byte": 1.5}
    for share, said in ((0.25, "note: text:b.txt: 25.0% of the text's bytes"), (0.0, None)):
        settings = {"inexact_share": share}
        found = Evaluation("text:a/b.txt", "text", "b.txt", "0", "m", "own", 1, metrics, {}, 3)
        show([replace(found, settings=settings)], "a model")
        out = capsys.readouterr().out
        assert (said in out) if said else ("note" not in out)


def test_a_run_that_cannot_be_written_to(train, files: Path, tmp_path, capsys, monkeypatch) -> None:
    """Its results go where --output says; without that it is asked for."""
    run, output = train("run"), tmp_path / "results.jsonl"

    def refuse(*arguments: object) -> None:
        raise HeadlessError("evaluations.jsonl cannot be written: Read-only file system")

    monkeypatch.setattr("headless.downstream.evaluate.append_evaluation", refuse)
    arguments = ["--model", str(run), "--tasks", f"blimp:{files}/pairs.jsonl"]
    assert "--output FILE writes elsewhere" in fails(arguments, capsys)
    assert main(["evaluate", *arguments, "--output", str(output)]) == 0
    said = capsys.readouterr()
    assert "Read-only file system; the results go to" in said.err
    assert said.out.splitlines()[-1] == f"results: {output}"
    assert len(read_evaluations(output)) == 1
    assert not (run / "evaluations.jsonl").exists()
