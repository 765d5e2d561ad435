"""Training that begins from a trained model: a run, a checkpoint, a Hugging Face directory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from headless.cli.main import main
from headless.errors import HeadlessError
from headless.training.assembly import build
from headless.training.module import PretrainingModule
from headless.training.pretrain import fit

NO_BACKBONE = {"--model.backbone." + name for name in (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)}  # fmt: skip


def without_backbone(arguments: list[str]) -> list[str]:
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    return [part for key, value in pairs if key not in NO_BACKBONE for part in (key, value)]


@pytest.fixture
def run(run_arguments: Callable[..., list[str]]) -> Path:
    return fit(build(run_arguments("source", "--model.optimizer.lr", "1e-2")))


@pytest.fixture
def tuned(run_arguments: Callable[..., list[str]]) -> Callable[..., Any]:
    """`tuned(place, objective, *options)` is a built run that begins from a place."""

    def begin(place: Path, *more: str, objective: str = "CrossEntropy", name: str = "tuned") -> Any:
        arguments = without_backbone(run_arguments(name, objective=objective))
        return build([*arguments, "--model.init_from", str(place), *more])

    return begin


def points(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_begins_with_the_sources_weights(run: Path, tuned: Callable[..., Any]) -> None:
    source = PretrainingModule.from_checkpoint(run)
    for place in (run, run / "checkpoints/last.ckpt"):
        module = tuned(place).model
        for name, tensor in source.backbone.state_dict().items():
            torch.testing.assert_close(module.backbone.state_dict()[name], tensor, rtol=0, atol=0)
        assert module.backbone.training
        assert module.begins_from == "headless (CWT)"


@pytest.mark.parametrize(("start", "key"), [("source", "nll"), ("embedding", "nll_uncalibrated")])
def test_the_first_validation_is_that_of_the_head_it_begins_with(
    start: str, key: str, run: Path, tuned: Callable[..., Any]
) -> None:
    bias = "initial" if start == "source" else "none"
    options = ("--model.init_head", start, "--model.objective.unigram_bias", bias)
    path = fit(tuned(run, *options), validate_first=True)
    last = json.loads((run / "summary.json").read_text())["last"]
    first = next(point for point in points(path) if "val/nll" in point)
    assert first["progress/step"] == 0
    assert first["val/nll"] == pytest.approx(last[f"val/{key}"], rel=1e-5)
    end = json.loads((path / "summary.json").read_text())
    assert end["begins_from"] == "headless (CWT)"
    assert end["last"]["val/nll"] != first["val/nll"]


def test_a_checkpoint_needs_its_source_no_more(run: Path, tuned: Callable[..., Any]) -> None:
    path = fit(tuned(run, "--model.init_head", "embedding"))
    ids_BT = torch.randint(0, 300, (2, 9))
    wanted = PretrainingModule.from_checkpoint(path)(ids_BT)
    shutil.rmtree(run)
    module = PretrainingModule.from_checkpoint(path)
    torch.testing.assert_close(module(ids_BT), wanted, rtol=0, atol=0)
    assert module.hparams["init_from"] is None


def test_a_frozen_backbone_stays_as_it_is(run: Path, tuned: Callable[..., Any]) -> None:
    path = fit(tuned(run, "--model.init_head", "embedding", "--model.freeze_backbone", "true"))
    before, after = (
        PretrainingModule.from_checkpoint(run).backbone.state_dict(),
        PretrainingModule.from_checkpoint(path),
    )
    for name, tensor in before.items():
        torch.testing.assert_close(after.backbone.state_dict()[name], tensor, rtol=0, atol=0)
    weight_VD = after.objective.weight_VD
    assert not torch.equal(weight_VD, before["embed_in.weight"])
    summary = json.loads((path / "summary.json").read_text())
    assert summary["parameters"] == weight_VD.numel()


def test_a_hugging_face_directory(run: Path, tuned: Callable[..., Any], tmp_path: Path) -> None:
    export = tmp_path / "export"
    assert main(["export", "--checkpoint", str(run), "--output", str(export)]) == 0
    module = tuned(export, "--model.init_head", "source", objective="CrossEntropy").model
    theirs = AutoModel.from_pretrained(export)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(module.backbone.state_dict()[name], tensor)
    path = fit(
        tuned(export, "--model.init_head", "source", name="from-export"), validate_first=True
    )
    first = next(point for point in points(path) if "val/nll" in point)
    last = json.loads((run / "summary.json").read_text())["last"]
    assert first["val/nll"] == pytest.approx(last["val/nll"], rel=1e-4)


def test_a_table_with_more_rows_than_ids(
    run: Path, tuned: Callable[..., Any], tmp_path: Path
) -> None:
    """Published models pad their tables to a round number."""
    export = tmp_path / "export"
    main(["export", "--checkpoint", str(run), "--output", str(export), "--head", "tied"])
    model = AutoModelForCausalLM.from_pretrained(export)
    rows = model.config.vocab_size
    model.resize_token_embeddings(rows + 28)
    model.save_pretrained(export)
    with pytest.raises(HeadlessError, match=r"remove SHA256SUMS, if the change is yours"):
        tuned(export, objective="ContrastiveWeightTying")
    (export / "SHA256SUMS").unlink()
    path = fit(tuned(export, objective="ContrastiveWeightTying"))
    module = PretrainingModule.from_checkpoint(path)
    assert module.vocab_size == rows + 28
    assert int(module.unigram_counts[rows:].sum()) == 0


def test_other_data_is_refused(
    run: Path, tuned: Callable[..., Any], text_files: Path, tmp_path: Path
) -> None:
    from headless.data.prepare import prepare

    prepare([str(text_files)], tmp_path / "other", vocab_size=300, validation_fraction=0.1)
    cli = tuned(run, "--data.path", str(tmp_path / "other"))
    with pytest.raises(HeadlessError, match="another tokenizer"):
        fit(cli)
    export = tmp_path / "export"
    main(["export", "--checkpoint", str(run), "--output", str(export)])
    AutoTokenizer.from_pretrained(tmp_path / "other/tokenizer").save_pretrained(export)
    (export / "SHA256SUMS").unlink()
    with pytest.raises(HeadlessError, match="another tokenizer"):
        fit(tuned(export, name="again"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.backbone.preset", "pythia-14m"], "brings its architecture"),
        (["--model.init_head", "embedding", "--model.objective.tied", "true"], "is tied"),
        (["--model.init_head", "source"], "set unigram_bias to initial"),
    ],
)
def test_what_does_not_fit(
    options: list[str], message: str, run: Path, tuned: Callable[..., Any]
) -> None:
    with pytest.raises(HeadlessError, match=message):
        fit(tuned(run, *options))


def test_nothing_to_begin_from(
    tuned: Callable[..., Any], run_arguments: Any, tmp_path: Path
) -> None:
    with pytest.raises(HeadlessError, match="is no model"):
        tuned(tmp_path / "absent")
    with pytest.raises(HeadlessError, match="needs model.init_from"):
        build(run_arguments("alone", "--model.init_head", "source"))
