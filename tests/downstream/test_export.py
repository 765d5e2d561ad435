"""`headless export`: what it writes, what it refuses, and that nothing is lost."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from headless.cli.main import main
from headless.downstream.export import export
from headless.downstream.loading import load
from headless.errors import HeadlessError
from headless.training.module import PretrainingModule


@pytest.fixture(scope="session")
def exported(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    for name, run in runs.items():
        assert main(["export", "--checkpoint", str(run), "--output", str(root / name)]) == 0
    return {name: root / name for name in runs}


def logits_of_run(run: Path, ids_BT: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return PretrainingModule.from_checkpoint(run)(ids_BT).double().log_softmax(-1)


@pytest.mark.parametrize("name", ["headless", "vanilla", "llama"])
def test_an_export_is_the_run(name: str, runs: dict[str, Path], exported: dict[str, Path]) -> None:
    place, trust = exported[name], name == "llama"
    model = AutoModelForCausalLM.from_pretrained(place, trust_remote_code=trust).eval()
    ids_BT = torch.randint(0, model.config.vocab_size, (2, 16))
    with torch.no_grad():
        found = model(input_ids=ids_BT).logits.double().log_softmax(-1)
    wanted = logits_of_run(runs[name], ids_BT)
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-4
    for way in (
        load(runs[name]),
        load(place, trust_remote_code=trust),
    ):
        with torch.no_grad():
            logits = way.model(input_ids=ids_BT).logits.double().log_softmax(-1)
        assert float((logits - wanted).abs().max() / wanted.abs().max()) <= 1e-4
    assert (
        AutoModel.from_pretrained(place).config.model_type
        == load(place, head=None).model.config.model_type
    )
    text = "the king loves a crown."
    theirs = AutoTokenizer.from_pretrained(place)
    assert theirs.encode(text) == AutoTokenizer.from_pretrained(runs[name] / "tokenizer").encode(
        text
    )


def test_what_is_in_the_directory(runs: dict[str, Path], exported: dict[str, Path]) -> None:
    files = {path.name for path in exported["headless"].iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files
    assert "modeling_headless.py" not in files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    assert "modeling_headless.py" in {path.name for path in exported["llama"].iterdir()}
    facts = json.loads((exported["headless"] / "headless.json").read_text())
    summary = json.loads((runs["headless"] / "summary.json").read_text())
    assert (facts["head"], facts["head_form"]) == ("calibrated", "folded")
    assert (facts["step"], facts["tokens"]) == (16, summary["tokens"])
    assert facts["metrics"]["val/nll"] == summary["last"]["val/nll"]
    _, front, card = (exported["headless"] / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "text-generation"
    for said in ("headless (CWT)", "calibrated, without a training step", "2,048", "gpt_neox 2 x"):
        assert said in card
    assert "trust_remote_code=True" in (exported["llama"] / "README.md").read_text()
    generation = json.loads((exported["headless"] / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(exported["headless"])
    assert generation["eos_token_id"] == tokenizer.eos_token_id


def test_tied_is_the_bare_head(runs: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "tied"
    assert (
        main(
            [
                "export",
                "--checkpoint",
                str(runs["headless"]),
                "--output",
                str(output),
                "--head",
                "tied",
            ]
        )
        == 0
    )
    model: Any = AutoModelForCausalLM.from_pretrained(output)
    module = PretrainingModule.from_checkpoint(runs["headless"])
    torch.testing.assert_close(model.get_output_embeddings().weight, module.embedding_VD)
    assert "metrics" not in json.loads((output / "headless.json").read_text())


def test_a_checkpoint_file_and_bf16(runs: dict[str, Path], tmp_path: Path) -> None:
    checkpoint, output = runs["headless"] / "checkpoints/last.ckpt", tmp_path / "half"
    arguments = ["--checkpoint", str(checkpoint), "--output", str(output), "--dtype", "bfloat16"]
    assert main(["export", *arguments]) == 0
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.dtype == torch.bfloat16
    facts = json.loads((output / "headless.json").read_text())
    assert 0 < facts["largest_relative_logit_error"] < 0.05


def test_a_masked_model(masked_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "bert"
    assert main(["export", "--checkpoint", str(masked_run), "--output", str(output)]) == 0
    model = AutoModelForMaskedLM.from_pretrained(output).eval()
    ids_BT = torch.randint(0, model.config.vocab_size, (2, 16))
    with torch.no_grad():
        found = model(input_ids=ids_BT).logits.double().log_softmax(-1)
    wanted = logits_of_run(masked_run, ids_BT)
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-4
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert (tokenizer.mask_token, tokenizer.padding_side) == ("[MASK]", "right")
    assert load(output).task == "masked"
    card = (output / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("for name in ")]
    assert "cls.predictions.transform.dense" in line


def test_without_its_file_a_decoder_has_the_bare_head(
    runs: dict[str, Path], exported: dict[str, Path]
) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(
        exported["llama"], output_loading_info=True
    )
    assert not report["missing_keys"]
    module = PretrainingModule.from_checkpoint(runs["llama"])
    ids_BT = torch.randint(0, module.vocab_size, (2, 16))
    with torch.no_grad():
        wanted = module.backbone(input_ids=ids_BT).last_hidden_state @ module.embedding_VD.T
        found = model.eval()(input_ids=ids_BT).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert "the matrix of the head" in (exported["llama"] / "README.md").read_text()
    with pytest.raises(HeadlessError, match="Python code of its own"):
        load(exported["llama"])


@pytest.mark.parametrize("name", ["vanilla", "llama", "gpt2"])
def test_a_padded_batch_generates_what_each_prompt_does_alone(
    name: str, train: Any, exported: dict[str, Path], tmp_path: Path
) -> None:
    place = exported.get(name, tmp_path / name)
    if name == "gpt2":  # the positions of its embeddings must begin after the padding
        run = train(name, "CrossEntropy", "gpt2", "--trainer.max_steps", "4")
        assert main(["export", "--checkpoint", str(run), "--output", str(place)]) == 0
    tokenizer = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModelForCausalLM.from_pretrained(place, trust_remote_code=True).eval()

    def continued(prompts: list[str]) -> list[list[int]]:
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
        return model.generate(**batch, **options)[:, batch.input_ids.shape[1] :].tolist()

    prompts = ["the", "my lord fears the sea, and a crown", "the king"]
    assert continued(prompts) == [continued([prompt])[0] for prompt in prompts]


def test_nothing_is_overwritten_unasked(
    runs: dict[str, Path], exported: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "model"
    shutil.copytree(exported["vanilla"], output)
    arguments = ["export", "--checkpoint", str(runs["headless"]), "--output", str(output)]
    before = (output / "model.safetensors").read_bytes()
    assert main(arguments) == 2
    assert "--overwrite true" in capsys.readouterr().err
    assert (output / "model.safetensors").read_bytes() == before
    assert main([*arguments, "--overwrite", "true"]) == 0
    assert (tmp_path / "model.old-1/model.safetensors").read_bytes() == before
    assert json.loads((output / "headless.json").read_text())["run"] == "headless"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.old-1"]


def pickled(path: Path) -> Path:
    torch.save({"headless": {}, "state_dict": {}, "extra": Path("/")}, path)
    return path


def test_what_is_no_checkpoint(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["headless"], run)
    last = run / "checkpoints/last.ckpt"
    foreign = torch.load(last, weights_only=True)
    older = {
        **foreign,
        "state_dict": {k: v for k, v in foreign["state_dict"].items() if "norm" not in k},
    }

    def said(place: Path, *more: str) -> str:
        output = tmp_path / "output"
        code = main(["export", "--checkpoint", str(place), "--output", str(output), *more])
        assert code == 2
        assert not output.exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "has no checkpoint yet" in said(_without_checkpoint(runs["vanilla"], tmp_path))
    assert "pickled objects" in said(_replaced(last, lambda p: pickled(p)))
    assert "not a checkpoint of this version" in said(
        _replaced(last, lambda p: torch.save(older, p))
    )
    assert "not a checkpoint of this version" in said(_replaced(last, lambda p: torch.save({}, p)))
    assert "damaged" in said(_replaced(last, lambda p: p.write_bytes(b"PK but no more")))
    assert "heads are trained and tied" in said(runs["vanilla"], "--head", "calibrated")
    lonely = tmp_path / "lonely.ckpt"
    torch.save(foreign, lonely)
    assert "not in a run directory" in said(lonely)


def _without_checkpoint(run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "young"
    shutil.copytree(run, copy)
    (copy / "checkpoints/last.ckpt").unlink()
    return copy


def _replaced(path: Path, write: Any) -> Path:
    path.unlink(missing_ok=True)
    write(path)
    return path


def test_a_pickle_where_safetensors_are_expected(exported: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "pickled"
    shutil.copytree(exported["vanilla"], model)
    weights = AutoModelForCausalLM.from_pretrained(exported["vanilla"]).state_dict()
    (model / "model.safetensors").unlink()
    (model / "unigram_counts.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    with pytest.raises(HeadlessError, match=r"pytorch_model\.bin is a pickle"):
        load(model)


def test_what_is_no_model(tmp_path: Path, exported: dict[str, Path]) -> None:
    (tmp_path / "empty").mkdir()
    cut = tmp_path / "cut"
    shutil.copytree(exported["vanilla"], cut)
    (cut / "model.safetensors").write_bytes(b"nothing")
    (cut / "SHA256SUMS").unlink()
    for place, message in {
        tmp_path / "empty": "neither a run directory",
        tmp_path / "absent": "is no model",
        cut: "no model can be loaded",
    }.items():
        with pytest.raises(HeadlessError, match=message):
            load(place)
    with pytest.raises(HeadlessError, match="one head"):
        load(exported["vanilla"], head="tied")
    with pytest.raises(HeadlessError, match="cannot be used"):
        load(exported["vanilla"], device="cuda:99")


def test_a_run_is_read_with_the_tokenizer_that_its_checkpoint_names(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["vanilla"], run)
    file = run / "tokenizer/tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    for opened in (
        load,
        lambda place: load(place, head=None),
        lambda place: export(place, tmp_path / "exported"),
    ):
        with pytest.raises(HeadlessError, match=r"tokenizer\.json is not the tokenizer that"):
            opened(run)
    assert not (tmp_path / "exported").exists()


def test_an_export_names_the_tokenizer_class_that_keeps_its_ids(train: Any, tmp_path: Path) -> None:
    """Transformers has a class of its own choice for this family."""
    heads = ("--model.backbone.extra", "{num_key_value_heads: 2}")
    run, output = train("qwen", "CrossEntropy", "qwen2", *heads), tmp_path / "qwen"
    assert export(run, output)["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "PreTrainedTokenizerFast.from_pretrained" in (output / "README.md").read_text()
    text = "In 1812 the king's  crown"
    truth = Tokenizer.from_file(str(run / "tokenizer/tokenizer.json")).encode(text).ids
    assert PreTrainedTokenizerFast.from_pretrained(output).encode(text) == truth
    assert load(output).tokenizer.encode(text) == truth


def test_what_is_no_export_is_never_moved(
    runs: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    thesis = tmp_path / "thesis" / "chapter.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    arguments = ["--checkpoint", str(runs["vanilla"]), "--output", str(thesis.parent)]
    for more in ((), ("--overwrite", "true")):
        assert main(["export", *arguments, *more]) == 2
        assert "is no export of a run, so it stays as it is" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [thesis]


def test_a_full_disk_leaves_nothing_in_the_way(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(facts: Any) -> str:  # the last file: all others are written by then
        raise OSError(errno.ENOSPC, "No space left on device", "README.md")

    with monkeypatch.context() as patch:
        patch.setattr("headless.downstream.export._model_card", fill)
        with pytest.raises(OSError, match="No space left"):
            export(runs["vanilla"], tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / ".model.partial-1234"  # by a process that was killed
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    export(runs["vanilla"], tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "unigram_counts.safetensors"]
)
def test_an_export_is_held_to_its_checksums(
    exported: dict[str, Path], tmp_path: Path, name: str
) -> None:
    copy = shutil.copytree(exported["headless"], tmp_path / "copy")
    (copy / "README.md").write_text("my own words")
    raw = bytearray((copy / name).read_bytes())
    raw[-100] ^= 1
    (copy / name).write_bytes(raw)
    for head in ("auto", None):
        with pytest.raises(HeadlessError, match=f"{name} is not what .*SHA256SUMS says"):
            load(copy, head=head)  # type: ignore[arg-type]
    (copy / name).write_bytes((exported["headless"] / name).read_bytes())
    assert load(copy).name == "copy"
