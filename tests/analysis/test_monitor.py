"""The laboratory while a model is trained: its keys, and the same numbers as `headless analyze`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from headless.analysis.laboratory import ANALYSES, analyze, select
from headless.analysis.session import Session
from headless.callbacks.laboratory import LaboratoryMonitor
from headless.callbacks.wandb_logger import records
from headless.cli.main import main
from headless.data.stream import open_dataset
from headless.errors import HeadlessError
from headless.geometry.marchenko_pastur import effective_rank_of_noise
from headless.runs.directory import RunDirectory
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.module import PretrainingModule
from headless.training.pretrain import fit

PLACES = {
    "LAYER": r"layer_\d\d",
    "POINT": r"(embed|post/\d\d|norm_f)",
    "WHERE": r"(embed|post/\d\d|norm_f|embedding|head)",
    "ROLE": "(q|k|v|o|gate|up|down)",
    "TABLE": "(embedding|head|positions)",
    "PLACE": "(norm1|norm2|final)",
    "MEASURE": "[a-z0-9_]+",
    "VARIANT": "[a-z0-9_/]+",
}
ROW = re.compile(r"^\s*\| `(.+?)` \| ", re.MULTILINE)


def scalars(path: Path) -> dict[str, float]:
    """Of an analysis.json, as they are logged."""
    findings = json.loads(path.read_text())["findings"]
    return {
        f"analysis/{name}": value
        for finding in findings
        for name, value in finding["scalars"].items()
        if value is not None
    }


def looks(path: Path) -> list[dict[str, Any]]:
    """The points of the monitor in a run's metrics."""
    points = read_metrics(path / "metrics.jsonl")
    return [p for p in points if any(key.startswith("analysis/") for key in p)]


def values(point: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in point.items() if key.startswith("analysis/")}


def mean_cosine(x_ND: np.ndarray) -> float:
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    return float((unit_ND @ unit_ND.T)[np.triu_indices(len(x_ND), 1)].mean())


def roy_vetterli(x_ND: np.ndarray) -> float:
    values_R = np.linalg.svd(x_ND - x_ND.mean(axis=0), compute_uv=False)
    shares_R = values_R[values_R > 1e-7 * values_R[0]] / values_R.sum()
    return float(np.exp(-(shares_R * np.log(shares_R)).sum()))


@pytest.fixture
def train(run_arguments: Callable[..., list[str]]) -> Callable[..., Path]:
    def make(name: str, *more: str, objective: str = "CrossEntropy") -> Path:
        sizes = ("--model.backbone.hidden_size", "32", "--model.backbone.num_hidden_layers", "3")
        sizes += ("--laboratory.enabled", "true")
        return fit(build(run_arguments(name, *sizes, *more, objective=objective)))

    return make


def test_keys_are_those_of_the_table(train: Callable[..., Path]) -> None:
    points = looks(train("run"))
    assert [p["progress/step"] for p in points] == [0, 6, 12]
    keys = {key for p in points for key in p if key.startswith(("analysis/", "geometry/"))}
    patterns = []
    for row in ROW.findall(LaboratoryMonitor.__doc__ or ""):
        pattern = re.escape(row)
        for word, meaning in PLACES.items():
            pattern = re.sub(rf"(?<![A-Z]){word}(?![A-Z])", lambda _, m=meaning: m, pattern)
        patterns.append(pattern)
    assert len(patterns) > 12
    for key in keys:
        assert any(re.fullmatch(pattern, key) for pattern in patterns), f"{key} is not in the table"
    for pattern in patterns:
        assert any(re.fullmatch(pattern, key) for key in keys), f"{pattern} was not logged"
    for wanted in (
        *("table_spectra/embedding/first_share", "table_spectra/embedding/first_share_centred"),
        *("table_spectra/head/effective_rank", "weight_spectra/q/alpha"),
        *("weight_spectra/down/stable_rank", "weight_values/up/excess_kurtosis"),
        *("weight_norms/o/rms", "weight_movement/v/distance", "norm_gains/final/mean"),
        *("anisotropy/post/01", "anisotropy/post/01/centred", "anisotropy/norm_f/without_rogue"),
        *("covariance_spectra/post/02/participation", "outliers/post/00/jaccard_next"),
        *("outliers/post/00/largest_ratio", "outliers/post/00/largest", "norms/post/01/ratio"),
        *("activations/post/01/kurtosis/median_dimension", "alignment_uniformity/next_token"),
        *("unigram/norm_f/slope", "ngrams/unigram/divergence", "bottleneck/contrastive/lost"),
    ):
        assert f"analysis/{wanted}" in keys, wanted


def test_geometry_is_that_of_the_hidden_states(train: Callable[..., Path]) -> None:
    """Against cosines of all pairs and numpy's singular values, without position 0."""
    path = train("run", "--laboratory.num_sequences", "5")
    model = PretrainingModule.from_checkpoint(path / "checkpoints/last.ckpt").eval()
    data = open_dataset(Path(yaml.safe_load((path / "config.yaml").read_text())["data"]["path"]))
    tokens = torch.from_numpy(np.asarray(data.split("validation").tokens).astype(np.int64))
    starts = np.linspace(0, len(tokens) - 16, 5).astype(int)
    with torch.no_grad():
        ids_BT = torch.stack([tokens[i : i + 16] for i in starts])
        layers = model.backbone(input_ids=ids_BT, output_hidden_states=True).hidden_states
    first, last = looks(path)[0], looks(path)[-1]
    assert last["geometry/states"] == 5 * 15
    assert last["geometry/effective_rank/null"] == effective_rank_of_noise(5 * 15, 32)
    assert sum(key.startswith("geometry/anisotropy/layer_") for key in last) == len(layers) == 4
    places = {f"layer_{i:02d}": x[:, 1:].flatten(0, 1) for i, x in enumerate(layers)}
    for name, x_ND in (places | {"embedding": model.embedding_VD.detach()}).items():
        x_ND = x_ND.double().numpy()
        assert last[f"geometry/anisotropy/{name}"] == pytest.approx(mean_cosine(x_ND), abs=1e-6)
        rank = roy_vetterli(x_ND)
        assert last[f"geometry/effective_rank/{name}"] == pytest.approx(rank, rel=1e-5)
        assert first[f"geometry/anisotropy/{name}"] != last[f"geometry/anisotropy/{name}"]


def test_there_are_enough_states(train: Callable[..., Path]) -> None:
    """Eight sequences of few tokens would bound the rank by themselves."""
    point = looks(train("run", "--data.sequence_length", "8"))[-1]
    assert point["geometry/states"] >= 8 * 32
    assert point["geometry/effective_rank/null"] > 0.9 * 32


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("objective", ["CrossEntropy", "ContrastiveWeightTying"])
def test_the_command_finds_the_same(
    train: Callable[..., Path], tmp_path: Path, objective: str
) -> None:
    """The last look is what `headless analyze --preset cheap` says of the run, and all of it."""
    path = train("run", objective=objective)
    output = tmp_path / "cheap"
    arguments = ["analyze", "--model", str(path), "--output", str(output), "--preset", "cheap"]
    assert main([*arguments, "--tokens", str(18 * 16)]) == 0  # 8 states for each of 32 dimensions
    theirs, ours = scalars(output / "analysis.json"), values(looks(path)[-1])
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-6, abs=1e-7), name
    moved = ours["analysis/weight_movement/q/distance"]
    assert moved > 0.01  # the command read the first weights
    assert values(looks(path)[0])["analysis/weight_movement/q/distance"] == 0.0


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama", "bert"])
def test_every_cheap_scalar_is_a_full_one(family: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    from headless.analysis.session import Subject

    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 32, "vocab_size": 101, "intermediate_size": 64}
    config = AutoConfig.for_model(family, **sizes)
    kind = AutoModelForMaskedLM if family == "bert" else AutoModelForCausalLM
    model = kind.from_config(config).eval()
    initial = kind.from_config(config).eval().base_model
    counts_V = torch.arange(1, 102)
    ids_NT = torch.randint(0, 101, (12, 32))
    subject = Subject("x", model, ids_NT, counts_V, ids_NT.flatten().numpy(), initial)
    found = {}
    names = select(preset="cheap")
    for preset in ("cheap", "full"):
        findings, left_out = analyze(Session(subject, preset=preset), select(names, preset))
        causal = ["unigram", "ngrams", "bottleneck"] if family == "bert" else []
        assert list(left_out) == causal
        found[preset] = {k: v for f in findings for k, v in f.scalars.items()}
    assert len(found["cheap"]) > 150
    assert found["cheap"].keys() < found["full"].keys()
    for name, value in found["cheap"].items():
        full = found["full"][name]
        assert value == pytest.approx(full, rel=1e-9, abs=1e-12, nan_ok=True), name


def test_presets_are_chosen_by_name() -> None:
    from headless.errors import HeadlessError

    assert select() == list(dict.fromkeys(one.option for one in ANALYSES))
    assert set(select(preset="cheap")) < set(select())
    with pytest.raises(HeadlessError, match="--preset full"):
        select(["cone"], "cheap")


@pytest.mark.usefixtures("blank_figures")
def test_at_the_end_all_of_it(
    run_arguments: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the command writes, the run writes; W&B has the pictures and the histograms."""
    some = ["weights", "cone", "histograms", "norms", "outliers"]  # all take a minute

    def chosen(names: Any = None, preset: Any = "full") -> Any:
        return select(some if preset == "full" else names, preset)

    monkeypatch.setattr("headless.analysis.analyze.select", chosen)
    sizes = ("--model.backbone.hidden_size", "32", "--model.backbone.num_hidden_layers", "2")
    end = ("--laboratory.at_end", "full", "--laboratory.tokens", "512", "--run.wandb", "offline")
    assert main(["pretrain", *run_arguments("run", *sizes, *end, "--laboratory.enabled=true")]) == 0
    path = tmp_path / "runs/run"
    arguments = ["analyze", "--model", str(path), "--output", str(tmp_path / "again")]
    arguments += ["--tokens", "512"]
    assert main([*arguments, "--analyses", f"[{', '.join(some)}]"]) == 0
    capsys.readouterr()
    ours = scalars(path / "analysis/analysis.json")
    theirs = scalars(tmp_path / "again/analysis.json")
    assert ours == theirs
    assert values(looks(path)[-1]) == pytest.approx(ours)
    for name in ("figures", "analysis.html"):
        assert (path / "analysis" / name).exists()
    pictures = {p.name for p in (path / "analysis/figures").iterdir()}
    assert pictures == {p.name for p in (tmp_path / "again/figures").iterdir()}
    sent: dict[str, Any] = {}
    (file,) = (path / "wandb").glob("offline-run-*/*.wandb")
    for record in records(file):
        for item in record.history.item:
            name, *part = item.nested_key or [item.key]
            value = json.loads(item.value_json)
            sent[name] = value if not part else {**sent.get(name, {}), part[0]: value}
    assert sent["analysis/norms/growth"] == pytest.approx(ours["analysis/norms/growth"])
    assert "analysis/norms/post/00/ratio" not in sent  # metrics.jsonl has it
    images = [v for k, v in sent.items() if k.startswith("analysis/figures/")]
    assert len(images) == len([name for name in pictures if name.endswith((".png", ".gif"))])
    assert all((file.parent / "files" / image["path"]).is_file() for image in images)
    counts = sent["analysis/histograms/weight_values/q/00"]
    assert counts["_type"] == "histogram"
    assert sum(counts["values"]) == 32 * 32
    assert "analysis/histograms/cone/embedding" in sent


def test_resumed(train: Callable[..., Path]) -> None:
    whole = train("whole")
    train("stopped", "--trainer.max_steps", "6")
    again = train("stopped", "--run.resume", "true")
    points = looks(again)
    assert [p["progress/step"] for p in points] == [0, 6, 12]
    last, expected = values(points[-1]), values(looks(whole)[-1])
    assert last.keys() == expected.keys()  # also the distance from the beginning
    assert last["analysis/weight_movement/q/distance"] > 0
    state = torch.load(again / "checkpoints/last.ckpt", weights_only=True)
    assert state["callbacks"]["LaboratoryMonitor"] == {"validations": 2}


def test_how_often_and_not_at_all(train: Callable[..., Path]) -> None:
    often = ("--trainer.val_check_interval", "3", "--laboratory.every_n_validations", "3")
    assert [p["progress/step"] for p in looks(train("often", *often))] == [0, 9, 12]
    points = read_metrics(train("off", "--laboratory.enabled", "false") / "metrics.jsonl")
    assert not any(key.startswith(("analysis/", "geometry/")) for p in points for key in p)


def test_training_is_the_same_with_and_without(train: Callable[..., Path]) -> None:
    """No random number is drawn, nothing is changed."""
    dropout = ("--model.backbone.extra", '{"hidden_dropout": 0.1}')
    with_it, without = (
        torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for path in (
            train("with", *dropout),
            train("without", *dropout, "--laboratory.enabled", "false"),
        )
    )
    for name, value in without.items():
        assert torch.equal(value, with_it[name]), name


def test_the_clock_stands_still(train: Callable[..., Path], monkeypatch: Any) -> None:
    import time

    look = LaboratoryMonitor._look

    def slow(self: Any, *arguments: Any) -> Any:
        time.sleep(1.0)
        return look(self, *arguments)

    monkeypatch.setattr(LaboratoryMonitor, "_look", slow)
    path = train("run", "--trainer.max_steps", "2", "--trainer.val_check_interval", "1")
    first, *_, last = looks(path)
    assert last["progress/seconds"] - first["progress/seconds"] < 2.0  # three looks: 3 s


@pytest.mark.usefixtures("blank_figures")
def test_a_masked_model(
    run_arguments: Callable[..., list[str]], text_files: Path, tmp_path: Path
) -> None:
    from headless.data.prepare import prepare

    data = tmp_path / "masked"
    prepare([str(text_files)], data, vocab_size=320, validation_fraction=0.1, mask_token="[MASK]")
    options = ("--data.task", "masked", "--model.backbone.model_type", "bert")
    path = fit(
        build(run_arguments("run", *options, "--data.path", str(data), "--laboratory.enabled=true"))
    )
    output = tmp_path / "cheap"
    arguments = ["analyze", "--model", str(path), "--output", str(output), "--preset", "cheap"]
    assert main([*arguments, "--tokens", str(9 * 16)]) == 0  # 8 states for each of 16 dimensions
    theirs, ours = scalars(output / "analysis.json"), values(looks(path)[-1])
    assert theirs.keys() == ours.keys()
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_too_little_text(
    train: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
    tmp_path: Path,
) -> None:
    """The weights alone, and a line that says so."""
    from headless.errors import HeadlessError

    def none(*_: Any, **__: Any) -> None:
        raise HeadlessError("the validation split holds no two sequences of 16 tokens")

    monkeypatch.setattr("headless.analysis.session.take_text", none)
    point = values(looks(train("run"))[-1])
    assert "analysis/weight_spectra/q/alpha" in point
    assert not any("anisotropy" in key for key in point)
    assert looks(tmp_path / "runs/run")[-1]["geometry/effective_rank/embedding"] > 1
    assert capsys.readouterr().err.count("the weights alone are looked at") == 1


def test_what_cannot_be_analysed_is_said(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """A run is not lost with its analysis."""
    monkeypatch.setattr("headless.analysis.analyze.select", lambda *_, **__: [])
    path = train("run", "--laboratory.at_end", "full")
    assert json.loads((path / "summary.json").read_text())["finished"]
    assert f"headless analyze --model {path}" in capsys.readouterr().err
    assert not (path / "analysis").exists()


def test_the_whole_analysis_is_where_the_model_was_trained(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """Lightning has taken the model to the CPU by then."""
    asked: dict[str, Any] = {}

    def analyze(*_: Any, **options: Any) -> Any:
        asked.update(options)
        raise HeadlessError("enough")

    monkeypatch.setattr("headless.analysis.analyze.analyze", analyze)
    RunDirectory(tmp_path).last_checkpoint.parent.mkdir()
    RunDirectory(tmp_path).last_checkpoint.touch()
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        default_root_dir=str(tmp_path),
        strategy=SimpleNamespace(root_device=torch.device("cuda", 0)),
    )
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    LaboratoryMonitor(at_end="full").on_fit_end(trainer, module)
    assert asked["device"] == "cuda:0"


def test_an_unknown_family_trains_on(train: Callable[..., Path], monkeypatch: Any) -> None:
    from headless.analysis.states import families

    monkeypatch.delitem(families.FAMILIES, "gpt_neox")
    path = train("run")
    assert "geometry/anisotropy/layer_03" in looks(path)[-1]  # the stream is known of any
    assert json.loads((path / "summary.json").read_text())["finished"]


def test_bad_options(
    run_arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value in (("num_sequences", "1"), ("every_n_validations", "0"), ("at_end", "x")):
        assert main(["pretrain", *run_arguments("run", f"--laboratory.{option}", value)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert option in line


def test_it_needs_no_heavy_library() -> None:
    code = (
        "import sys; from headless.callbacks.laboratory import LaboratoryMonitor; "
        "lazy = {'datasets', 'wandb', 'jsonargparse', 'faiss', 'headless.analysis'}; "
        "heavy = lazy & set(sys.modules); sys.exit(', '.join(heavy) or 0)"
    )
    blocked = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=blocked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_histograms_keep_every_value() -> None:
    from headless.analysis.record import Finding, Place, Sample

    x = np.random.default_rng(0).normal(3.0, 2.0, 50_000)
    even, uneven = np.linspace(-9, 15, 97), np.geomspace(1e-3, 99, 97)
    density, _ = np.histogram(x, even, density=True)
    samples = {
        Place("q", 0): Sample(even, density, count=len(x)),
        Place("k", 0): Sample(even, density),  # of how many is not known
        Place("v", 0): Sample(uneven, density, count=len(x)),  # no logger draws those
    }
    ((place, pair),) = Finding({}, {"{place}/histogram": samples}).histograms.items()
    assert place == "q/00"
    np.testing.assert_array_equal(pair[0], np.histogram(x, even)[0])
