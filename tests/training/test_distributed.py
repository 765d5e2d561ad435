"""Two processes compute what one does: weights, scores, resuming, and who sees and writes what.

All two-process cases run in one launch (`distributed_worker.py`); what they are compared with runs
here. Everything in float64, so that "the same" leaves no room.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import run_case

from headless.data.blocks import BlockSampler, num_blocks
from headless.data.stream import open_dataset
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit
from headless.training.validate import validate

WORKER = Path(__file__).with_name("distributed_worker.py")
STEPS = 8
SAME = {"rtol": 0.0, "atol": 1e-10}
DDP = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
FSDP = ("--trainer.devices", "2", "--trainer.strategy", "fsdp")
DOUBLE = ("--trainer.precision", "64-true")
GLOBAL = ("--model.objective.negatives", "global")
LAZY = ("--model.optimizer.table", "lazy")
LEARNED = ("--model.objective.learn_temperature", "true")
SWITCHED = ("--model.switch_at", "0.5")
CENTRED = ("--model.objective.mu_centering", "true", "--model.objective.softcap", "5")
CE = {"objective": "CrossEntropy"}
UNEVEN = ("--trainer.limit_train_batches", "3")
SPARSE: dict[str, Any] = {"sparse": True, "objective": "CrossEntropy"}
# Every look at a model takes longer than its training: some cases, of each kind, are looked at.
QUIET = ("--laboratory.enabled", "false", "--samples.every_n_steps", "1000")
WATCHED = ("one", "ddp", "fsdp", "fsdp-whole", "fsdp-stopped", "fsdp-resumed")
# Nor are all of them validated on the whole split.
VALIDATED = ("one", "one-ce", "ddp", "ddp-ce", "fsdp", "fsdp-ce")
BRIEF = ("--trainer.limit_val_batches", "1")
EXTRAS = ("double", "stop_at", "sparse", "lost_at")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

pytestmark = [
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
        reason="this torch has no gloo, and two processes cannot talk to each other",
    ),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="torchrun needs fork to start processes"),
]


def launch(command: list[str], **environment: str) -> None:
    """Run it to its end, on one thread a process."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    root = str(Path(__file__).parents[2])
    variables["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=variables)
    assert done.returncode == 0, done.stderr[-4000:]


def size(batch: int, accumulate: int = 1) -> tuple[str, ...]:
    return (
        *("--data.batch_size", str(batch), "--data.val_batch_size", "3"),
        *("--trainer.accumulate_grad_batches", str(accumulate)),
    )


# Every run takes STEPS steps of 8 sequences. "-cwt" is the headless objective, "-ce" cross-entropy.
CASES: dict[str, dict[str, Any]] = {
    "ddp": {"options": [*DDP, *DOUBLE, *GLOBAL, *size(4)]},
    "ddp-accumulated": {"options": [*DDP, *DOUBLE, *GLOBAL, *size(2, 2)]},
    "ddp-microbatch": {"options": [*DDP, *DOUBLE, *size(4)]},
    "ddp-ce": {"options": [*DDP, *DOUBLE, *size(4)], "objective": "CrossEntropy"},
    "fsdp": {"options": [*FSDP, *GLOBAL, *size(4)], "double": True},
    "fsdp-accumulated": {"options": [*FSDP, *GLOBAL, *size(2, 2)], "double": True},
    "fsdp-ce": {"options": [*FSDP, *size(4)], "double": True, "objective": "CrossEntropy"},
    "fsdp-temperature": {"options": [*FSDP, *GLOBAL, *LEARNED, *size(4)], "double": True},
    "ddp-lazy": {"options": [*DDP, *DOUBLE, *GLOBAL, *LAZY, *size(2, 2)]},
    "ddp-switched": {"options": [*DDP, *DOUBLE, *GLOBAL, *SWITCHED, *size(4)]},
    "fsdp-switched": {"options": [*FSDP, *GLOBAL, *SWITCHED, *size(4)], "double": True},
    "fsdp-centred": {"options": [*FSDP, *CENTRED, *size(4)], "double": True, **CE},
    # Steps of two micro-batches and of one in turn, whose sequences have 16 targets or 5.
    "ddp-sparse": {"options": [*DDP, *DOUBLE, *size(2, 2), *UNEVEN], **SPARSE},
    "fsdp-sparse": {"options": [*FSDP, *size(2, 2), *UNEVEN], "double": True, **SPARSE},
    "ddp-lost": {"options": [*DDP, *size(4)], "lost_at": 3},
    "fsdp-lost": {"options": [*FSDP, *size(4)], "lost_at": 3},
    "epoch": {
        "options": [*DDP, *size(5), "--trainer.max_epochs", "1", "--trainer.max_steps", "-1"]
    },
}
for _kind, _options in (("ddp", DDP), ("fsdp", FSDP)):
    # In float32 with dropout: bit for bit, and the random numbers of each rank belong to it.
    _case = {"options": [*_options, *size(4), "--model.backbone.extra", '{"hidden_dropout": 0.1}']}
    CASES[f"{_kind}-whole"] = _case
    CASES[f"{_kind}-stopped"] = _case | {"stop_at": 5}
    _resumed = {"options": [*_case["options"], "--run.resume", "true"], "run": f"{_kind}-stopped"}
    CASES[f"{_kind}-resumed"] = _resumed
CASES["spread"] = {
    "options": [*DDP, *size(2), "--run.resume", "true", "--trainer.max_steps", str(STEPS + 5)],
    "run": "spread-later",
}
SINGLE: dict[str, dict[str, Any]] = {
    "one": {"options": [*DOUBLE, *size(8)]},
    "one-global": {"options": [*DOUBLE, *GLOBAL, *size(4, 2)]},
    "one-accumulated": {
        "options": [*DOUBLE, "--model.objective.negatives", "accumulated", *size(4, 2)]
    },
    "one-microbatch": {"options": [*DOUBLE, *size(4, 2)]},
    "one-temperature": {"options": [*DOUBLE, *LEARNED, *size(8)]},
    "one-ce": {"options": [*DOUBLE, *size(8)], "objective": "CrossEntropy"},
    "one-lazy": {"options": [*DOUBLE, *LAZY, *size(8)]},
    "one-switched": {"options": [*DOUBLE, *SWITCHED, *size(8)]},
    "one-centred": {"options": [*DOUBLE, *CENTRED, *size(8)], **CE},
    "one-sparse": {"options": [*DOUBLE, *size(4, 2), *UNEVEN], **SPARSE},
}


class Runs:
    """What the cases left: per rank, and in their run directories."""

    def __init__(self, root: Path, output: Path) -> None:
        self.root = root
        self.output = output

    def rank(self, name: str, rank: int = 0) -> dict[str, Any]:
        return torch.load(self.output / f"{name}.{rank}.pt")

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        path = self.root / name / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]

    def points(self, name: str, key: str) -> list[dict[str, Any]]:
        return [p for p in read_metrics(self.root / name / "metrics.jsonl") if key in p]


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All cases, trained."""
    root, output = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("seen")

    def arguments(name: str, case: dict[str, Any]) -> list[str]:
        return [
            *("--run.name", case.get("run", name), "--run.root", str(root)),
            *("--run.wandb", "disabled"),
            *("--model.objective", case.get("objective", "ContrastiveWeightTying")),
            *("--model.backbone.model_type", "gpt_neox", "--model.backbone.hidden_size", "16"),
            *("--model.backbone.num_hidden_layers", "2"),
            *("--model.backbone.num_attention_heads", "2"),
            *("--model.backbone.intermediate_size", "32"),
            *("--model.backbone.max_position_embeddings", "32"),
            *("--model.optimizer.lr", "1e-2", "--model.schedule.warmup_steps", "2"),
            *("--data.path", str(dataset), "--data.sequence_length", "16"),
            *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
            *("--trainer.max_steps", str(STEPS), "--trainer.gradient_clip_val", "0.3"),
            *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "4"),
            *("--trainer.log_every_n_steps", "1", "--checkpoint.every_n_steps", "4"),
            *("--samples.every_n_steps", "4", "--samples.max_new_tokens", "3"),
            *("--throughput.every_n_steps", "2"),
            *(() if name in WATCHED else QUIET),
            *(() if name in VALIDATED else BRIEF),
            *case["options"],
        ]

    cases = [
        {"name": name, "arguments": arguments(name, case)}
        | {key: case[key] for key in EXTRAS if key in case}
        for name, case in CASES.items()
    ]
    first = {"options": [*size(8), "--trainer.devices", "1"]}
    run_case({"arguments": arguments("spread-later", first)})
    file = output / "cases.json"
    file.write_text(json.dumps(cases))
    launch([*TORCHRUN, str(WORKER), str(file), str(output)])
    for name, case in SINGLE.items():
        alone = run_case(case | {"arguments": [*arguments(name, case), "--trainer.devices", "1"]})
        torch.save(alone, output / f"{name}.0.pt")
    return Runs(root, output)


def assert_same(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], **tolerance: float
) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, msg=lambda text, name=name: f"{name}: {text}", **(tolerance or SAME)
        )


@pytest.mark.parametrize(
    ("spread", "whole"),
    [
        ("one-global", "one"),
        ("one-accumulated", "one"),
        ("ddp", "one"),
        ("ddp-accumulated", "one"),
        ("ddp-microbatch", "one-microbatch"),  # the mean of the losses of both halves
        ("ddp-ce", "one-ce"),
        ("fsdp", "one"),
        ("fsdp-accumulated", "one"),
        ("fsdp-ce", "one-ce"),
        ("ddp-lazy", "one-lazy"),  # ids and rows are what the processes tell each other
        ("ddp-switched", "one-switched"),
        ("fsdp-switched", "one-switched"),
        ("fsdp-centred", "one-centred"),
        ("ddp-sparse", "one-sparse"),
        ("fsdp-sparse", "one-sparse"),
        ("fsdp-temperature", "one-temperature"),  # one number: a rank holds nothing of it
    ],
)
def test_a_spread_run_is_the_whole_run(runs: Runs, spread: str, whole: str) -> None:
    """However the 8 sequences of a step are dealt out, the weights come out the same."""
    ours, theirs = runs.weights(spread), runs.weights(whole)
    assert ours["backbone.embed_in.weight"].dtype == torch.float64
    # How many rows the last micro-batch's table was made from: the whole step's, or a part's.
    for weights in (ours, theirs):
        weights.pop("objective.num_rows", None)
    assert_same(ours, theirs)
    norms, expected = (runs.rank(name)["logged"]["optim/grad_norm"] for name in (spread, whole))
    assert norms == pytest.approx(expected, rel=1e-10)
    if "microbatch" not in spread:  # a step's loss is of all its rows, on every process
        losses, expected = (runs.rank(n)["logged"]["train/loss"] for n in (spread, whole))
        assert losses == pytest.approx(expected, rel=1e-10)
        assert len(losses) == STEPS
    assert min(norms) > 0.3  # clipping acts: its norm must be that of all shards together


def test_the_negatives_of_the_micro_batch_are_others(runs: Runs) -> None:
    """What the test above would say if negatives did not reach beyond a device."""
    with pytest.raises(AssertionError):
        assert_same(runs.weights("ddp-microbatch"), runs.weights("one"), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize(
    ("spread", "whole"),
    [("ddp", "one"), ("fsdp", "one"), ("ddp-ce", "one-ce"), ("fsdp-ce", "one-ce")],
)
def test_scores_are_of_the_whole_validation_split(
    runs: Runs, dataset: Path, spread: str, whole: str
) -> None:
    """Its blocks do not fill the last batches of two ranks; both ranks log the same."""
    blocks = num_blocks(len(open_dataset(dataset).split("validation")), 16, partial=True)
    assert blocks % 6 not in (0, 3)
    expected = {k: v for k, v in runs.rank(whole)["logged"].items() if k.startswith("val/")}
    assert {"val/nll", "val/accuracy", "val/loss"} <= expected.keys()
    for rank in (0, 1):
        logged = runs.rank(spread, rank)["logged"]
        for name, values in expected.items():
            assert len(values) == STEPS // 4
            assert logged[name] == pytest.approx(values, abs=1e-10), (name, rank)


def test_samples_of_shards_are_those_of_the_whole(runs: Runs) -> None:
    texts = [
        (runs.root / name / "samples.jsonl").read_text().splitlines() for name in ("fsdp", "one")
    ]
    assert [json.loads(t)["text"] for t in texts[0]] == [json.loads(t)["text"] for t in texts[1]]


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_the_laboratory_sees_the_whole(runs: Runs, name: str) -> None:
    """Weights from shards, states from all ranks: the numbers of one device, at every look."""
    ours, theirs = (runs.points(run, "geometry/anisotropy/layer_01") for run in (name, "one"))
    assert len(ours) == len(theirs) == 1 + STEPS // 4
    for mine, yours in zip(ours, theirs, strict=True):
        names = {key for key in yours if key.startswith(("analysis/", "geometry/"))}
        assert names == {key for key in mine if key.startswith(("analysis/", "geometry/"))}
        assert {
            "analysis/weight_spectra/q/effective_rank",
            "analysis/norm_gains/final/mean",
        } < names
        for key in names:
            assert mine[key] == pytest.approx(yours[key], rel=1e-4, abs=1e-6), key


def test_shards_are_shards(runs: Runs) -> None:
    held = [runs.rank("fsdp", rank)["held"] for rank in (0, 1)]
    whole = runs.rank("ddp")["held"]
    assert sum(held) == whole
    assert max(held) < 0.6 * whole


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_stopped_and_resumed(runs: Runs, kind: str) -> None:
    """Stopped on both ranks after the checkpoint: the same weights, bit for bit."""
    assert_same(runs.weights(f"{kind}-stopped"), runs.weights(f"{kind}-whole"), rtol=0.0, atol=0.0)
    for rank in (0, 1):
        whole = runs.rank(f"{kind}-whole", rank)["rows"]
        stopped = runs.rank(f"{kind}-stopped", rank)["rows"]
        resumed = runs.rank(f"{kind}-resumed", rank)["rows"]
        assert torch.equal(stopped, whole[: len(stopped)])
        assert torch.equal(resumed, whole[-len(resumed) :])
        assert len(resumed) == 4 * (STEPS - 4)


def in_order(dataset: Path, begin: int, end: int) -> torch.Tensor:
    """The inputs of the first epoch's sequences, as they are dealt out."""
    tokens = open_dataset(dataset).split("train").tokens
    full = torch.from_numpy(tokens[: (len(tokens) - 1) // 16 * 16].astype("int64")).view(-1, 16)
    return full[torch.from_numpy(BlockSampler(len(full), 1).order(0)[begin:end])]


def test_one_rank_goes_on_where_two_were(runs: Runs, dataset: Path) -> None:
    """No sequence for the second time, and none left out."""
    shutil.copytree(runs.root / "ddp-whole", runs.root / "gathered")
    options = ["--config", str(runs.root / "ddp-whole" / "config.yaml"), *size(4)]
    options += ["--run.name", "gathered", "--run.resume", "true", "--trainer.devices", "1"]
    options += ["--trainer.strategy", "auto", "--trainer.max_steps", str(STEPS + 10)]
    read = 8 * STEPS
    assert torch.equal(
        run_case({"arguments": options})["rows"], in_order(dataset, read, read + 4 * 10)
    )


def test_two_ranks_go_on_where_one_was(runs: Runs, dataset: Path) -> None:
    rows = [runs.rank("spread", rank)["rows"].view(-1, 2, 16) for rank in (0, 1)]
    together = torch.stack(rows, dim=1).view(-1, 16)
    assert torch.equal(together, in_order(dataset, 8 * STEPS, 8 * STEPS + 4 * 5))


def test_sharded_checkpoints_are_anyones(runs: Runs) -> None:
    """One process goes on from a checkpoint of two with sharded weights, and optimizer states."""
    config = runs.root / "fsdp-ce" / "config.yaml"
    copy = runs.root / "alone"
    copy.mkdir()
    (copy / "checkpoints").mkdir()
    source = runs.root / "fsdp-ce" / "checkpoints" / "last.ckpt"
    (copy / "checkpoints" / "last.ckpt").write_bytes(source.read_bytes())
    cli = build(
        [
            *("--config", str(config), "--run.name", "alone", "--run.resume", "true"),
            *("--trainer.devices", "1", "--trainer.strategy", "auto", *DOUBLE, *size(8)),
            *("--trainer.max_steps", str(STEPS + 2)),
        ]
    )
    fit(cli)
    assert cli.trainer.global_step == STEPS + 2
    states = cli.trainer.optimizers[0].state_dict()["state"]
    assert all(float(state["step"]) == STEPS + 2 for state in states.values())


@pytest.mark.parametrize("name", ["ddp-ce", "fsdp-ce"])
def test_validated_on_one_device(runs: Runs, name: str) -> None:
    """Whatever a run was trained on."""
    scores = validate(runs.root / name, {"trainer.precision": "64-true"})
    expected = runs.rank("one-ce")["logged"]["val/nll"][-1]
    assert scores["val/nll"] == pytest.approx(expected, rel=1e-6)


def test_ranks_share_an_epoch_without_overlap(runs: Runs, dataset: Path) -> None:
    """Every block once, on one of the ranks, but for the rest that fills no batch of both."""
    tokens = open_dataset(dataset).split("train").tokens
    full = tokens[: (len(tokens) - 1) // 16 * 16].astype("int64").reshape(-1, 16)
    blocks = Counter(block.tobytes() for block in full)
    seen = Counter(
        row.numpy().tobytes() for rank in (0, 1) for row in runs.rank("epoch", rank)["rows"]
    )
    assert seen <= blocks  # as often as the text has it, and no more
    assert blocks.total() % 10 != 0  # there is a rest to leave out
    assert seen.total() == blocks.total() // 10 * 10


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_one_rank_writes(runs: Runs, name: str) -> None:
    """The files of a run on two devices are those of a run on one, and count both."""
    ours, theirs = (
        sorted(str(p.relative_to(runs.root / run)) for p in (runs.root / run).rglob("*"))
        for run in (name, "one")
    )
    assert ours == theirs
    points = runs.points(name, "train/loss")
    assert [p["progress/step"] for p in points] == list(range(1, STEPS + 1))
    assert [p["progress/tokens"] for p in points] == [8 * 16 * (n + 1) for n in range(STEPS)]
    flops = [runs.points(run, "train/loss")[-1]["progress/flops"] for run in (name, "one")]
    assert flops[0] == flops[1]
    for run in (name, "one"):
        samples = (runs.root / run / "samples.jsonl").read_text().splitlines()
        assert len(samples) == STEPS // 4
    assert len(runs.points(name, "throughput/tokens_per_second")) == 3
    for point in runs.points(name, "throughput/tokens_per_second"):
        seconds = point["throughput/step_ms"] / 1e3
        assert point["throughput/tokens_per_second"] == pytest.approx(8 * 16 / seconds)
    summary = json.loads((runs.root / name / "summary.json").read_text())
    assert summary["tokens"] == STEPS * 8 * 16
    assert summary["finished"]
    alone = json.loads((runs.root / "one" / "summary.json").read_text())
    assert summary["parameters"] == alone["parameters"]


@pytest.mark.parametrize("name", ["ddp-lost", "fsdp-lost"])
def test_a_loss_that_one_process_lost_is_lost_to_all(runs: Runs, name: str) -> None:
    """Each says so at the same step, and none waits for another."""
    for rank in (0, 1):
        seen = runs.rank(name, rank)
        assert "the loss is not a finite number at step 3" in seen["error"]
        assert len(seen["rows"]) == 3 * 4


def test_buffers_are_not_sent_at_every_step(runs: Runs) -> None:
    assert runs.rank("ddp")["buffers_sent"] is False


def test_under_slurm(run_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """What `srun` starts: one process a task that finds its rank in SLURM's variables."""
    more = ("--trainer.max_steps", "4", *DDP, "--trainer.num_nodes", "1")
    arguments = run_arguments("slurm", *more, *QUIET)
    variables = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
        **{"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NAME": "test", "SLURM_NODEID": "0"},
        **{"SLURM_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "1"},
    }
    command = [sys.executable, "-m", "headless", "pretrain", *arguments]
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**variables, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in (0, 1)
    ]
    try:
        answers = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], answers
    points = read_metrics(tmp_path / "runs" / "slurm" / "metrics.jsonl")
    losses = [p for p in points if "train/loss" in p]
    assert [p["progress/tokens"] for p in losses] == [2 * 8 * 16 * (n + 1) for n in range(4)]


def test_the_line_in_the_docs(run_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    """The torchrun line of one machine, with two processes in place of eight."""
    text = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("torchrun --standalone"))
    words = line.replace("8", "2").split()
    where = words.index("--config")
    words[where : where + 2] = run_arguments("docs", "--trainer.max_steps", "2")
    words[words.index("headless")] = str(Path(sys.executable).with_name("headless"))
    launch([sys.executable, "-m", "torch.distributed.run", *words[1:]])
    assert json.loads((tmp_path / "runs/docs/environment.json").read_text())["devices"] == 2
