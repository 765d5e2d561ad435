"""`headless neighbors` on runs, from the words to the table."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.cli.main import main
from headless.data.stream import open_dataset
from headless.data.tokenizer import load_tokenizer

pytest.importorskip("faiss")


@pytest.fixture
def model(run_arguments: Callable[..., list[str]], tmp_path: Path, capsys) -> str:
    """A run of a few steps."""
    assert main(["pretrain", *run_arguments("run")]) == 0
    capsys.readouterr()
    return str(tmp_path / "runs" / "run")


def works(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command; what it prints."""
    assert main(["neighbors", *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command; the one line that it complains with."""
    capsys.readouterr()
    assert main(["neighbors", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    complaints = [line for line in lines if line.startswith("headless: error:")]
    assert len(complaints) == 1
    return complaints[0]


def test_tokens(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out" / "tokens.json"
    out = works(capsys, "--model", model, "--token", " king", "--k", 3, "--output", file)
    assert "' king' (run, input table)" in out
    found = json.loads(file.read_text())
    assert len(found["tokens"][0]["neighbors"]) == 3
    for near in found["tokens"][0]["neighbors"]:
        assert f"{near['score']:.3f}" in out
    several = '[" king", " the"]'
    options = ("--table", "output", "--metric", "l2", "--index", "hnsw")
    out = works(capsys, "--model", model, "--token", several, *options)
    assert "' king' (run, output table)" in out
    assert "' the' (run, output table)" in out
    assert "distance²" in out
    analogy = '[" king", " the", "a"]'
    assert "' king' - ' the' + 'a'" in works(capsys, "--model", model, "--analogy", analogy)
    assert "id" in works(capsys, "--model", model, "--token_id", "[7, 8]")
    assert "exists: replace it" in fails(
        capsys, "--model", model, "--token", " the", "--output", file
    )
    works(capsys, "--model", model, "--token_id", 7, "--output", file, "--overwrite", "true")
    assert json.loads(file.read_text()) != found


def test_from_a_text_to_its_neighbours(
    model: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--model", model, "--store", tmp_path / "store")
    out = works(capsys, *store, "--build_store", dataset, "--max_tokens", 500, "--index", "ivf")
    assert "500 contexts of run" in out
    assert (tmp_path / "store" / "ivf.faiss").is_file()
    file = tmp_path / "context.json"
    texts = ("--context", '["the king [a]", "no man"]')
    out = works(capsys, *store, *texts, "--k", 4, "--output", file, "--index", "ivf")
    assert "'the king [a]' (run, calibrated head)" in out
    assert "nearest stored contexts" in out
    first = json.loads(file.read_text())["contexts"][0]
    assert {key: len(first[key]) for key in ("likeliest", "specific", "contexts")} == {
        key: 4 for key in ("likeliest", "specific", "contexts")
    }
    tokens = open_dataset(dataset).split("train")
    tokenizer = load_tokenizer(str(dataset / "tokenizer"))
    for near in first["contexts"]:
        position = near["position"]
        assert near["token"] == tokenizer.decode(tokens[position : position + 1])
    alone = works(capsys, "--model", model, "--context", "the king")
    assert "nearest stored contexts" not in alone

    assert "exists: give another --store" in fails(capsys, *store, "--build_store", dataset)


def test_a_store_of_another_model_is_refused(
    model: str,
    dataset: Path,
    tmp_path: Path,
    run_arguments: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pretrain", *run_arguments("other", "--seed_everything", "9")]) == 0
    store = ("--store", tmp_path / "store")
    works(capsys, "--model", model, *store, "--build_store", dataset, "--max_tokens", 100)
    other = ("--model", tmp_path / "runs" / "other", *store)
    assert "other weights (of 'run')" in fails(capsys, *other, "--context", "the king")


def test_what_is_wrong_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ((), "give one of --token, --analogy, --context"),
        (("--token", " king", "--context", "a"), "got --token and --context"),
        (("--token", " king", "--token_id", "3"), "name the same thing"),
        (("--build_store", "data"), "name the store's directory"),
        (("--token", " king", "--store", "x"), "--store goes with"),
        (("--analogy", '["a", "b"]'), "three tokens"),
        (("--token", " king", "--k", "0"), "k must be at least 1"),
        (
            ("--build_store", "a", "--store", "b", "--max_tokens", "0"),
            "max_tokens must be at least 1",
        ),
        (("--token", " king", "--output", str(tmp_path)), "is a directory"),
        (("--token", " king"), "no model"),
        (("--token", " king", "--metrik", "l2"), "did you mean 'metric'?"),
    ):
        assert message in fails(capsys, "--model", tmp_path / "none", *arguments)


def test_what_a_model_does_not_know(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tokens: " in fails(capsys, "--model", model, "--token", " kingdom of heaven")
    assert "token_id must be from 0" in fails(capsys, "--model", model, "--token_id", 9999)
    assert "is not a store" in fails(capsys, "--model", model, "--context", "a", "--store", "/no")
