"""`headless finetune`: from labelled files to a directory of results, and what users get wrong."""

import errno
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import headless
from headless.cli.main import main
from headless.cli.parsing import options_from
from headless.downstream.classification.tasks import make_task
from headless.downstream.options import FinetuneOptions, Recipe, Source

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("configs/finetune/*.yaml"))


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Hugging Face decoder with a tokenizer of ours."""
    import torch
    from transformers import AutoConfig, AutoModel

    from headless.data.stream import open_dataset
    from headless.data.tokenizer import load_tokenizer

    directory = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = load_tokenizer(str(open_dataset(dataset).tokenizer_path))
    config = AutoConfig.for_model(
        "gpt_neox",
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Sentences about the sea and about a crown, in pairs with their numbers."""
    path = tmp_path / "labelled.jsonl"
    words = ["the sea", "a crown"]
    rows = [
        {
            "text": f"my lord {i} loves {words[i % 2]}",
            "label": words[i % 2],
            "other": f"{words[i % 2]} {i}",
            "number": float(i % 2),
        }
        for i in range(80)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def arguments(model: Path, labelled: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a small fine-tuning into tmp_path/out, with more after them."""

    def make(*more: str) -> list[str]:
        return [
            *("finetune", "--model", str(model), "--task", str(labelled)),
            *("--output", str(tmp_path / "out"), "--accelerator", "cpu", "--lr", "1e-2"),
            *("--batch_size", "8", "--epochs", "2", *more),
        ]

    return make


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_directory_of_results_that_can_be_made_again(
    arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(arguments("--seeds", "[1,2]")) == 0
    assert "output directory" in capsys.readouterr().out
    found = read(out / "results.json")
    assert [record["seed"] for record in found["seeds"]] == [1, 2]
    assert {n: s["examples"] for n, s in found["splits"].items()} == {
        "train": 64,
        "validation": 8,
        "test": 8,
    }
    assert found["splits"]["train"]["classes"] == {"a crown": 32, "the sea": 32}
    values = [record["scores"]["test"]["accuracy"] for record in found["seeds"]]
    summary = found["summary"]["test"]["accuracy"]
    assert summary["mean"] == pytest.approx(sum(values) / 2)
    # Student's t with one degree of freedom: 12.706 standard errors
    assert summary["interval_95"] == pytest.approx(
        12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4
    )
    assert found["baseline"]["accuracy"] == 0.5
    for record in found["seeds"]:
        directory = out / f"seed-{record['seed']}"
        assert len((directory / "metrics.jsonl").read_text().splitlines()) == 2
        lines = [json.loads(x) for x in (directory / "predictions.jsonl").read_text().splitlines()]
        right = [line["label"] == line["prediction"] for line in lines]
        assert sum(right) / len(right) == pytest.approx(record["scores"]["test"]["accuracy"])
    tuned = headless.load(out / "model", head=None)
    assert tuned.model.config.hidden_size == 32
    assert set(read(out / "model" / "classifier.json")["classes"]) == {"the sea", "a crown"}
    again = tmp_path / "again"
    assert main(["finetune", "--config", str(out / "config.yaml"), "--output", str(again)]) == 0
    assert read(again / "results.json")["seeds"] == found["seeds"]


def test_pairs_regression_and_a_probe(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    more = ("--text_pair_column", "other", "--label_column", "number", "--regression", "true")
    assert main(arguments(*more, "--mode", "probe")) == 0
    found = read(tmp_path / "out" / "results.json")
    assert found["metrics"] == ["spearman", "pearson", "rmse"]
    line = json.loads((tmp_path / "out/seed-0/predictions.jsonl").read_text().splitlines()[0])
    assert {"text", "pair", "label", "prediction"} == set(line)


def test_an_output_is_only_moved_aside_when_asked(
    arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for more in ((), ("--overwrite", "true")):  # no fine-tuning: never
        assert main(arguments("--epochs", "1", *more)) == 2
        assert "is no fine-tuning, so it stays as it is" in capsys.readouterr().err
    (out / "results.json").write_text("{}")
    assert main(arguments("--epochs", "1")) == 2
    assert "exists: give another --output" in capsys.readouterr().err
    assert main(arguments("--epochs", "1", "--overwrite", "true")) == 0
    assert (tmp_path / "out.old-1" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--text_column", "txet"], "no column 'txet' (--text_column); did you mean 'text'?"),
        (["--label_column", "labels"], "(--label_column); did you mean 'label'?"),
        (["--regression", "true"], "'the sea' is no number"),
        (["--task", "colla"], "did you mean 'cola'?"),
        (["--task", "copa"], "does not fit a classifier"),
        (["--task", "nowhere.csv"], "there is no nowhere.csv"),
        (["--max_length", "64"], "max_length 64 is more than the 32 positions"),
        (["--metrics", "[acuracy]"], "did you mean 'accuracy'?"),
        (["--seeds", "[1,1]"], "seeds must be different"),
        (["--lr", "-1"], "lr must be positive"),
        (["--epoch", "3"], "did you mean 'epochs'?"),
        (["--precision", "7-bit"], "7-bit"),
        (["--model", "nowhere/at/all"], "nowhere/at/all"),
        (["--validation_fraction", "0.6", "--test_fraction", "0.5"], "nothing to train on"),
    ],
)
def test_one_line_says_what_is_wrong(
    more: list[str],
    message: str,
    arguments: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments(*more)) == 2
    errors = capsys.readouterr().err.splitlines()
    lines = [line for line in errors if line.startswith("headless: error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not tmp_path.joinpath("out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": f"a {i}", "label": "x"} for i in range(20)], "a single class, 'x'"),
        ([{"text": " ", "label": "x"}], "row 1: an empty text"),
        ([{"text": "a", "label": None}], "no labelled example to train on"),
        ([], "holds no rows"),
        ("{", "bad.jsonl:1 is not JSON"),
    ],
)
def test_bad_files_are_named(
    rows: Any,
    message: str,
    arguments: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bad.jsonl"
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text)
    assert main(arguments("--task", str(path))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "bad.jsonl" in error or "single class" in message
    assert not (tmp_path / "out").exists()


def test_hidden_labels_of_a_test_file_are_never_scored(
    arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    rows = [{"sentence": f"my lord {i} loves the sea", "label": i % 2} for i in range(40)]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test.write_text("".join(json.dumps(row | {"label": -1}) + "\n" for row in rows[:20]))
    more = ("--task", "sst2", "--data", str(train), "--test", str(test), "--epochs", "1")
    assert main(arguments(*more)) == 0
    assert "none of the 20 examples of test has a label" in capsys.readouterr().out
    found = read(tmp_path / "out/results.json")
    assert (found["reported_split"], found["splits"]["test"]["unlabelled"]) == ("validation", 20)
    assert "test" not in found["summary"]


def test_the_rate_fits_the_model_and_chance_is_called_chance(
    model: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["finetune", "--model", str(model), "--task", str(labelled), "--accelerator", "cpu"]
    common += ["--batch_size", "4", "--epochs", "6", "--validation_fraction", "0.3"]
    common += ["--test_fraction", "0.3"]
    assert main([*common, "--output", str(tmp_path / "fits")]) == 0
    said = capsys.readouterr()
    assert "learning rate: 0.001 (--lr takes another)" in said.err
    assert "baseline's" not in said.out
    found = read(tmp_path / "fits/results.json")
    assert found["lr"] == 1e-3
    assert yaml.safe_load((tmp_path / "fits/config.yaml").read_text())["lr"] == 1e-3
    assert found["summary"]["test"]["accuracy"]["mean"] > 0.9
    assert main([*common, "--output", str(tmp_path / "low"), "--lr", "1e-7"]) == 0
    said = capsys.readouterr()
    assert "learning rate:" not in said.err
    assert "is not better than the baseline's 0.5000" in said.out
    assert "another rate than --lr 1e-07, or more than --epochs 6" in said.out
    assert "baseline's" in "".join(read(tmp_path / "low/results.json")["notes"])


def test_a_class_that_training_does_not_know(
    arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.csv"
    path.write_text("text,label\nmy lord,the storm\n")
    assert main(arguments("--validation", str(path))) == 2
    error = capsys.readouterr().err
    assert "the label 'the storm' of validation does not occur in the training text" in error


@pytest.mark.parametrize("words", [["--task", "lm-head"], ["--task=lm-head"]])
def test_the_head_has_a_command_of_its_own(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", *words]) == 2
    assert "required: model" in capsys.readouterr().err


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_builds(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert path.read_text().startswith(f"# headless finetune --config {relative} ")
    words = ["--config", str(path), "--model", "m", "--output", "o"]
    options = options_from("finetune", words)
    names = [{f.name for f in fields(part)} for part in (FinetuneOptions, Source, Recipe)]
    assert sum(map(len, names)) == len(options)
    written = yaml.safe_load(path.read_text())
    source, recipe = (
        part(**{k: v for k, v in options.items() if k in own})
        for part, own in zip((Source, Recipe), names[1:], strict=True)
    )
    assert recipe.lr == written["lr"]
    task, _ = make_task(options["task"], source)
    assert (task.dataset is None) == written["task"].endswith(".jsonl")


def test_recipes_are_there() -> None:
    assert {"glue-balanced", "glue-regular", "xnli"} <= {path.stem for path in RECIPES}


def test_a_full_disk_leaves_nothing_in_the_way(
    arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("headless.downstream.classification.model.save_file", fill)
        assert main(arguments("--epochs", "1")) == 2
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
    assert main(arguments("--epochs", "1")) == 0
    assert (tmp_path / "out" / "model" / "classifier.json").is_file()
