"""Going on with a run: what may change is used, what makes another run is refused untouched."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from headless.cli.main import main
from headless.data.blocks import BlockSampler
from headless.data.prepare import prepare
from headless.data.stream import open_dataset
from headless.errors import HeadlessError
from headless.progress import Display
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit

QUIET = ("--laboratory.enabled", "false")
BATCHES = 6  # of 4 sequences
SIZE = ("--data.batch_size", "4", "--trainer.max_steps", str(BATCHES), *QUIET)


class Watcher(Callback):
    """Remembers what every batch holds and the settings with which it is used."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.rows: list[torch.Tensor] = []
        self.groups: list[dict] = []
        self.stop_at = stop_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # noqa: ANN001
        if len(self.rows) == self.stop_at:
            raise RuntimeError("stopped")
        self.rows.append(batch["input_ids"].clone())
        self.groups.append(
            {k: v for k, v in trainer.optimizers[0].param_groups[0].items() if k != "params"}
        )


def train(arguments: list[str], watcher: Watcher | None = None) -> Watcher:
    watcher = watcher or Watcher()
    cli = build(arguments, Display())
    cli.trainer.callbacks.insert(1, watcher)
    fit(cli)
    return watcher


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def options(run_arguments: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def make(*more: str, name: str = "run") -> list[str]:
        return run_arguments(name, *SIZE, *more)

    return make


@pytest.fixture(scope="module")
def trained(run_arguments_in: Callable[..., list[str]], tmp_path_factory) -> Path:
    """A finished run of a few steps."""
    root = tmp_path_factory.mktemp("trained")
    train(run_arguments_in(root, "run", *SIZE))
    return root / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, where `options` look for it."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "run"))


RESUME = ("--run.resume", "true")
LONGER = (*RESUME, "--trainer.max_steps", str(BATCHES + 3))


def test_what_makes_another_run_is_refused_and_named_and_nothing_is_written(
    run: Path, options, dataset: Path, text_files: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    prepare([str(text_files)], other, tokenizer=str(dataset / "tokenizer"), validation_fraction=0.4)
    before = snapshot(run.parent)
    for leaf, value in {
        "model.objective.init_args.temperature": "0.5",
        "model.backbone.intermediate_size": "64",
        "data.sequence_length": "8",
        "data.path": str(other),
        "seed_everything": "7",
    }.items():
        option = leaf.replace(".init_args", "")
        with pytest.raises(HeadlessError) as caught:
            train(options(*LONGER, f"--{option}", value))
        message = str(caught.value)
        assert leaf in message
        assert f"→ {value}" in message
        assert f"--model.init_from {run}/checkpoints/last.ckpt --run.name" in message
        assert snapshot(run.parent) == before, leaf


def test_several_refused_settings_stand_in_one_line(run: Path, options, capsys) -> None:
    more = ("--seed_everything", "7", "--data.sequence_length", "8", "--model.optimizer.lr", "1")
    assert main(["pretrain", *options(*LONGER, *more)]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "seed_everything 0 → 7" in line
    assert "data.sequence_length 16 → 8" in line
    assert "optimizer.lr" not in line  # that may change


def test_new_rates_are_used_and_the_old_ones_kept(run: Path, options, capsys) -> None:
    text = (run / "config.yaml").read_text()
    more = ("--model.optimizer.lr", "0.5", "--model.optimizer.weight_decay", "0.25")
    more += ("--model.optimizer.betas", "[0.5, 0.75]", "--model.schedule.name", "constant")
    used = train(options(*LONGER, *more)).groups
    assert [group["lr"] for group in used] == [0.5] * 3
    assert used[0]["weight_decay"] == 0.25
    assert tuple(used[0]["betas"]) == (0.5, 0.75)
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["optimizer"]["lr"] == 0.5
    assert (run / f"config.until-step-{BATCHES}.yaml").read_text() == text
    assert f"from step {BATCHES} on: model.optimizer.lr 0.001 → 0.5" in capsys.readouterr().err
    # A second change from the same step leaves what was used before it.
    train(options(*LONGER, "--trainer.max_steps", "10"))
    assert (run / f"config.until-step-{BATCHES}.yaml").read_text() == text
    assert "lr: 0.5" in (run / f"config.until-step-{BATCHES + 3}.yaml").read_text()


def test_a_schedule_of_more_steps_is_used_from_the_first_of_them(run: Path, options) -> None:
    whole = train(options("--trainer.max_steps", str(BATCHES + 3), name="whole"))
    resumed = train(options(*LONGER))
    assert [g["lr"] for g in resumed.groups] == [g["lr"] for g in whole.groups[BATCHES:]]


def test_a_finished_run_says_so(run: Path, options, capsys) -> None:
    before = snapshot(run)
    for more in ((), ("--model.optimizer.lr", "0.5")):
        assert main(["pretrain", *options(*RESUME, *more)]) == 0
        said = capsys.readouterr().err
        assert f"run is finished ({BATCHES} steps)" in said
        assert ("not used: model.optimizer.lr" in said) == bool(more)
        assert snapshot(run) == before


def test_the_same_data_elsewhere(run: Path, options, dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "moved")
    train(options(*LONGER, "--data.path", str(tmp_path / "moved")))
    assert len(read_metrics(run / "metrics.jsonl")) > BATCHES


@pytest.mark.parametrize(("batch_size", "accumulate", "steps"), [(8, 1, None), (2, 3, 4)])
def test_another_batch_size_goes_on_with_the_next_sequence(
    run: Path, options, dataset: Path, batch_size: int, accumulate: int, steps: int | None
) -> None:
    """Without a limit to the end of the epoch, and every sequence of it once."""
    limits = ("--trainer.max_epochs", "1", "--trainer.val_check_interval", "1000")
    limits += ("--trainer.max_steps", str(BATCHES + steps if steps else -1))
    more = ("--data.batch_size", str(batch_size))
    more += ("--trainer.accumulate_grad_batches", str(accumulate))
    rows = torch.cat(train(options(*RESUME, *more, *limits)).rows)
    tokens = open_dataset(dataset).split("train").tokens
    full = torch.from_numpy(tokens[: (len(tokens) - 1) // 16 * 16].astype("int64")).view(-1, 16)
    begin, end = 4 * BATCHES, len(full) // batch_size * batch_size
    end = begin + steps * batch_size * accumulate if steps else end
    assert torch.equal(rows, full[torch.from_numpy(BlockSampler(len(full), 1).order(0)[begin:end])])


def test_a_batch_size_that_does_not_meet_the_position(run: Path, options) -> None:
    before = snapshot(run)
    with pytest.raises(HeadlessError, match=r"has read 24 sequences .* 1 x 4 x 1 as before"):
        train(options(*LONGER, "--data.batch_size", "5"))
    assert snapshot(run) == before


def test_a_checkpoint_of_an_earlier_version(run: Path, options) -> None:
    """It does not know its position: its weights are a beginning all the same."""
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["headless"]["position"], checkpoint["headless"]["dataset_sha256"]
    torch.save(checkpoint, path)
    with pytest.raises(HeadlessError, match="earlier version.*--model.init_from"):
        train(options(*LONGER))


def test_epochs_of_one_batch_are_counted_as_such(options, tmp_path: Path) -> None:
    """To Lightning 1 is one batch and 1.0 are all of them."""
    epochs = ("--trainer.limit_train_batches", "1", "--trainer.max_epochs", "5")
    more = (*epochs, "--trainer.max_steps", "-1", "--trainer.val_check_interval", "1")
    stops = (*more, "--checkpoint.every_n_steps", "1", *RESUME)
    with pytest.raises(RuntimeError, match="stopped"):
        train(options(*stops), Watcher(stop_at=3))
    train(options(*stops))
    points = read_metrics(tmp_path / "runs" / "run" / "metrics.jsonl")
    assert [p["progress/step"] for p in points if "train/loss" in p] == [1, 2, 3, 4, 5]


def test_a_start_anew_takes_the_tokenizer_of_its_data(run: Path, options, dataset: Path) -> None:
    """Where there is no checkpoint yet, whatever an earlier start left."""
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "tokenizer" / "tokenizer.json").write_text("{}")
    train(options(*RESUME, "--trainer.max_steps", "1"))
    names = [p.name for p in (dataset / "tokenizer").iterdir()]
    for name in names:
        assert (run / "tokenizer" / name).read_bytes() == (
            dataset / "tokenizer" / name
        ).read_bytes()


def test_two_starts_in_one_directory(options, tmp_path: Path) -> None:
    """An overlapping requeue: the second one is told, and no step is logged twice."""

    class Second(Callback):
        complaint = ""

        def on_train_batch_start(self, *args: object) -> None:
            if not self.complaint:
                with pytest.raises(HeadlessError) as caught:
                    fit(build(options(*RESUME)))
                Second.complaint = str(caught.value)

    cli = build(options(*RESUME))
    cli.trainer.callbacks.append(Second())
    fit(cli)
    assert f"run is being written to by process {os.getpid()} on {os.uname().nodename}" in (
        Second.complaint
    )
    points = read_metrics(tmp_path / "runs" / "run" / "metrics.jsonl")
    steps = [p["progress/step"] for p in points if "train/loss" in p]
    assert steps == list(range(1, BATCHES + 1))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run"]


def test_a_start_that_failed_leaves_no_run_behind(options, tmp_path: Path) -> None:
    prompt = ("--samples.every_n_steps", "1", "--samples.prompts", f"[{'the king ' * 60}]")
    with pytest.raises(HeadlessError):
        train(options(*prompt))
    with pytest.raises(RuntimeError, match="stopped"):
        train(options(), Watcher(stop_at=0))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_start_that_failed_puts_back_what_it_replaced(run: Path, options) -> None:
    before = snapshot(run.parent)
    with pytest.raises(RuntimeError, match="stopped"):
        train(options("--run.overwrite", "true"), Watcher(stop_at=0))
    assert snapshot(run.parent) == before
    with pytest.raises(RuntimeError, match="stopped"):
        train(options(*LONGER, "--model.optimizer.lr", "0.5"), Watcher(stop_at=0))
    assert {k: v[1] for k, v in snapshot(run.parent).items()} == {
        k: v[1] for k, v in before.items()
    }
    with pytest.raises(RuntimeError, match="stopped"):
        train(options("--run.overwrite", "true"), Watcher(stop_at=1))
    assert (run.parent / "run.old-1").is_dir()  # a step was made: this is a run
    assert (run / "config.yaml").is_file()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../x", "a/b", "/proc/abs", ".hidden", "-x", "a\nb"]
)
def test_a_name_is_one_part_of_a_path(run: Path, options, name: str) -> None:
    before = snapshot(run.parent.parent)
    with pytest.raises(HeadlessError, match="run.name must be "):
        train(options("--run.overwrite", "true", f"--run.name={name}"))
    assert snapshot(run.parent.parent) == before


def test_what_is_no_run_is_never_moved_or_written_to(options, tmp_path: Path) -> None:
    thesis = tmp_path / "runs" / "run" / "chapter.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    for more in (RESUME, ("--run.overwrite", "true")):
        with pytest.raises(HeadlessError, match="is no run"):
            train(options(*more))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [thesis]


def test_a_copy_goes_on_where_it_lies(run: Path) -> None:
    """Its config names the place of the original."""
    copy = Path(shutil.copytree(run, run.with_name("copy")))
    before = snapshot(run)
    train(["--config", str(copy / "config.yaml"), *LONGER])
    assert snapshot(run) == before
    steps = [p["progress/step"] for p in read_metrics(copy / "metrics.jsonl") if "train/loss" in p]
    assert steps == list(range(1, BATCHES + 4))
