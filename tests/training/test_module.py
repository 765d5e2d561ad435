"""The training module: what it reports, what it saves, what two objectives share."""

import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from headless.objectives import log_unigram
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.module import PretrainingModule
from headless.training.pretrain import fit
from headless.training.validate import validate

OBJECTIVES = ["CrossEntropy", "ContrastiveWeightTying", "Combined"]


def deciles_of(counts_V: list[int]) -> list[list[int]]:
    """Token ids by falling count, each cut where the running sum is nearest to its tenth."""
    order = sorted(range(len(counts_V)), key=lambda id: -counts_V[id])
    reached = [0, *itertools.accumulate(counts_V[id] for id in order)]
    cuts = [
        min(range(len(reached)), key=lambda i: abs(reached[i] - reached[-1] * k / 10))
        for k in range(10)
    ]
    return [order[a:b] for a, b in itertools.pairwise([*cuts, len(order)])]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_validation_scores_against_a_plain_computation(
    run_arguments: Callable[..., list[str]], tmp_path: Path, objective: str
) -> None:
    """Every validation token once, in float64, from logits of the whole vocabulary."""
    more = ("--data.val_batch_size", "5")  # uneven batches
    if objective == "ContrastiveWeightTying":
        more += ("--model.objective.temperature", "0.5")
    cli = build(run_arguments("run", *more, objective=objective))
    fit(cli)
    module, data = cli.model.eval(), cli.datamodule
    tokens = torch.from_numpy(data.dataset.split("validation")[:])
    hidden, targets = [], []
    with torch.no_grad():
        for begin in range(0, len(tokens) - 1, 16):
            piece = tokens[begin : begin + 17]
            states = module.backbone(input_ids=piece[None, :-1]).last_hidden_state
            hidden.append(states[0].double())
            targets.append(piece[1:])
    hidden_ND, targets_N = torch.cat(hidden), torch.cat(targets)
    assert len(targets_N) == len(tokens) - 1
    table = module.embedding_VD.detach().double()
    if objective == "ContrastiveWeightTying":
        counts = data.unigram_counts.double() + 1
        bare = hidden_ND @ table.T / 0.5
        logits = bare + (counts / counts.sum()).log()
    else:
        head = module.objective if objective == "CrossEntropy" else module.objective.cross_entropy
        bare = logits = hidden_ND @ head.weight_VD.detach().double().T
    points = read_metrics(tmp_path / "runs/run/metrics.jsonl")
    last = [p for p in points if "val/nll" in p][-1]
    nll = F.cross_entropy(logits, targets_N).item()
    size = data.manifest.splits["validation"]["bytes"]
    size -= len(data.tokenizer.decode(tokens[:1]).encode())  # nothing predicts it
    assert last["val/nll"] == pytest.approx(nll, rel=1e-5)
    assert last["val/perplexity"] == pytest.approx(math.exp(nll), rel=1e-4)
    assert last["val/bits_per_byte"] == pytest.approx(
        nll / math.log(2) * len(targets_N) / size, rel=1e-5
    )
    counts_V, total = data.unigram_counts.tolist(), data.unigram_counts.sum().item()
    nll_N = F.cross_entropy(logits, targets_N, reduction="none")
    ids_K = deciles_of(counts_V)
    weighted = 0.0
    for k, ids in enumerate(ids_K):
        is_in_N = torch.isin(targets_N, torch.tensor(ids, dtype=torch.long))
        if count := int(is_in_N.sum()):
            assert last[f"val/nll_decile_{k}"] == pytest.approx(
                nll_N[is_in_N].mean().item(), rel=1e-5
            )
            weighted += last[f"val/nll_decile_{k}"] * count / len(targets_N)
        else:
            assert f"val/nll_decile_{k}" not in last
        assert sum(counts_V[id] for id in ids) == pytest.approx(total / 10, abs=max(counts_V))
    assert weighted == pytest.approx(last["val/nll"], rel=1e-6)
    assert cli.run.directory.read_summary()["last"]["val/nll_decile_9"] == last["val/nll_decile_9"]
    accuracy = (logits.argmax(-1) == targets_N).double().mean().item()
    assert last["val/accuracy"] == pytest.approx(accuracy, abs=2.1 / len(targets_N))
    if objective == "ContrastiveWeightTying":
        expected = F.cross_entropy(bare, targets_N).item()
        assert last["val/nll_uncalibrated"] == pytest.approx(expected, rel=1e-5)
        assert last["val/nll"] < last["val/nll_uncalibrated"]
    else:
        assert "val/nll_uncalibrated" not in last
    torch.testing.assert_close(
        module(tokens[None, :16]).double(), logits[None, :16], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns(run_arguments: Callable[..., list[str]], tmp_path: Path, objective: str) -> None:
    more = ("--trainer.max_steps", "80", "--trainer.val_check_interval", "20")
    rate = ("--model.optimizer.lr", "1e-2", "--model.schedule.warmup_steps", "5")
    cli = build(run_arguments("run", *more, *rate, objective=objective))
    fit(cli)
    nll = [
        p["val/nll"] for p in read_metrics(tmp_path / "runs/run/metrics.jsonl") if "val/nll" in p
    ]
    counts = cli.datamodule.unigram_counts.double()
    p = counts / counts.sum()
    unigram_entropy = -(p[p > 0] * p[p > 0].log()).sum().item()
    assert nll[-1] < unigram_entropy - 1.0  # far better than knowing how frequent words are
    assert nll[-1] < nll[0]


def test_objectives_start_from_the_same_backbone_and_see_the_same_batches(run_arguments) -> None:
    modules, batches = [], []
    for objective in OBJECTIVES:
        cli = build(run_arguments(objective, objective=objective))
        cli.datamodule.trainer = cli.trainer
        modules.append(cli.model.backbone.state_dict())
        batches.append([b["input_ids"] for b in cli.datamodule.train_dataloader()][:4])
    for other in (1, 2):
        assert all(torch.equal(v, modules[other][k]) for k, v in modules[0].items())
        assert all(torch.equal(a, b) for a, b in zip(batches[0], batches[other], strict=True))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_checkpoint_reloads_by_itself(run_arguments, tmp_path: Path, objective: str) -> None:
    """With torch's default of loading plain values only, and without the config."""
    cli = build(run_arguments("run", objective=objective))
    fit(cli)
    path = tmp_path / "runs/run/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint) >= {"state_dict", "optimizer_states", "lr_schedulers", "headless"}
    module = PretrainingModule.load_from_checkpoint(path).eval()
    ids = torch.arange(10)[None]
    torch.testing.assert_close(module(ids), cli.model.eval()(ids))


def test_validate_gives_the_runs_own_numbers(run_arguments, tmp_path: Path) -> None:
    fit(build(run_arguments("run")))
    run = tmp_path / "runs/run"
    last = [p for p in read_metrics(run / "metrics.jsonl") if "val/nll" in p][-1]
    scores = validate(run, {"data.val_batch_size": 3})
    for key in (
        "val/nll",
        "val/nll_uncalibrated",
        "val/bits_per_byte",
        "val/accuracy",
        "val/nll_decile_0",
    ):
        assert scores[key] == pytest.approx(last[key], rel=1e-5), key
    again = validate(run / "checkpoints" / "last.ckpt", {"data.val_batch_size": 3})
    assert again == pytest.approx(scores, rel=1e-12)


def test_a_checkpoint_is_read_once(
    run_arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a validation, and by a run that goes on."""
    fit(build(run_arguments("run")))
    read: list[Path] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **how: read.append(path) or load(path, **how))
    validate(tmp_path / "runs/run")
    assert len(read) == 1
    fit(build(run_arguments("run", "--run.resume=true", "--trainer.max_steps=14")))
    assert len(read) == 2


def test_the_saved_config_starts_the_same_run_again(run_arguments, tmp_path: Path) -> None:
    fit(build(run_arguments("first")))
    first = tmp_path / "runs/first"
    again = build(["--config", str(first / "config.yaml"), "--run.name", "again"])
    fit(again)
    weights = [
        torch.load(tmp_path / f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "again")
    ]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert (first / "tokenizer" / "tokenizer.json").is_file()


def test_accumulated_micro_batches_give_the_gradient_of_cross_entropy_on_all(
    run_arguments, tmp_path: Path
) -> None:
    """The mean of micro-batches is that of the batch (not so for CWT: other negatives)."""
    results = []
    for size, accumulate in (("8", "2"), ("16", "1")):
        more = ("--data.batch_size", size, "--trainer.accumulate_grad_batches", accumulate)
        cli = build(
            run_arguments(f"run{size}", *more, "--trainer.max_steps", "3", objective="CrossEntropy")
        )
        fit(cli)
        points = read_metrics(tmp_path / f"runs/run{size}/metrics.jsonl")
        results.append([p["progress/tokens"] for p in points if "train/loss" in p])
        results.append(cli.model.embedding_VD.detach())
    assert results[0] == results[2] == [256, 512, 768]
    torch.testing.assert_close(results[1], results[3], rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_is_training(run_arguments, tmp_path: Path) -> None:
    losses = []
    for compiled in ("false", "true"):
        more = ("--model.compile", compiled, "--trainer.max_steps", "3")
        more += ("--model.backbone.num_hidden_layers", "1")
        fit(build(run_arguments(f"run-{compiled}", *more)))
        points = read_metrics(tmp_path / f"runs/run-{compiled}/metrics.jsonl")
        losses.append([p["train/loss"] for p in points if "train/loss" in p])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns_on_a_gpu(run_arguments, tmp_path: Path, objective: str) -> None:
    more = ("--trainer.accelerator", "gpu", "--trainer.devices", "1", "--trainer.max_steps", "60")
    rate = ("--model.optimizer.lr", "1e-2", "--model.schedule.warmup_steps", "5")
    fit(build(run_arguments("run", *more, *rate, objective=objective)))
    points = read_metrics(tmp_path / "runs/run/metrics.jsonl")
    nll = [p["val/nll"] for p in points if "val/nll" in p]
    assert nll[-1] < nll[0] - 0.5
    assert any("memory/peak_gib" in p for p in points)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ("CrossEntropy", {"tied": "true", "unigram_bias": "fixed"}),
        ("CrossEntropy", {"unigram_bias": "initial"}),
        ("CrossEntropy", {"softcap": "5", "learn_temperature": "true", "mu_centering": "true"}),
        ("ContrastiveWeightTying", {"duplicates": "logq", "num_sampled": "8"}),
        ("ContrastiveWeightTying", {"duplicates": "unique", "learn_temperature": "true"}),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else x,
)
def test_forms_take_the_texts_unigram_distribution_and_keep_it(
    run_arguments, objective: str, options: dict
) -> None:
    more = [x for k, v in options.items() for x in (f"--model.objective.{k}", v)]
    cli = build(run_arguments("forms", *more, objective=objective))
    fit(cli)
    ours = cli.model.objective
    log_p = log_unigram(cli.datamodule.unigram_counts)
    if "fixed" in options.values() or "logq" in options.values():
        torch.testing.assert_close(ours.log_unigram_V, log_p)
    else:
        assert ours.log_unigram_V is None
    if "initial" in options.values():  # it began there and moved
        assert 0 < (ours.bias_V - log_p).abs().max() < 1.0
    if "mu_centering" in options:  # a matrix of normal numbers is not centred
        assert ours.weight_VD.mean(dim=0).abs().max() < 1e-7
    if objective == "ContrastiveWeightTying":
        assert ours.num_rows == 8 * 16
    (point,) = [p for p in read_metrics(cli.run.directory.metrics) if "val/nll" in p][-1:]
    before = torch.get_rng_state()
    again = PretrainingModule.from_checkpoint(cli.run.directory.path)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn for it
    assert again.checkpoint_step == cli.trainer.global_step
    for (name, a), b in zip(
        cli.model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    scores = validate(cli.run.directory.path)
    assert scores["val/nll"] == pytest.approx(point["val/nll"], rel=1e-5)


def test_validation_takes_none_of_trainings_random_numbers(
    run_arguments: Callable[..., list[str]],
) -> None:
    """A headless run with sampled negatives ends the same however often it is validated."""
    sampled = ("--model.objective.num_sampled", "8", "--trainer.max_steps", "4")
    ends = []
    for name, every in (("often", "1"), ("once", "4")):
        more = (*sampled, "--trainer.val_check_interval", every)
        cli = build(run_arguments(name, *more, objective="ContrastiveWeightTying"))
        fit(cli)
        ends.append(cli.model.embedding_VD.detach().clone())
    assert torch.equal(*ends)
