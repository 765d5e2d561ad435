"""What lets a run go on from a checkpoint: its position in the data, its random numbers, its data.

All that is kept are plain values, which `torch.load(weights_only=True)` reads.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from headless.data.blocks import BlockSampler, Position
from headless.errors import HeadlessError
from headless.runs.resume import Change
from headless.training.checkpoint_io import CHECKPOINT_KEY

Checkpoint = dict[str, Any]

# -- whether it may ---------------------------------------------------------------------------


def check_tokenizer(theirs: str | None, datamodule: Any) -> None:
    """Refuse data whose tokens are others than those of a checkpoint."""
    ours = getattr(datamodule, "tokenizer_sha256", theirs)
    if theirs and ours is None:
        raise HeadlessError(
            f"the checkpoint was trained on text, and {datamodule.path} holds item ids: give the "
            "data of that run"
        )
    if theirs and ours and theirs != ours:
        raise HeadlessError(
            f"the checkpoint was trained with another tokenizer ({theirs[:12]}) than the data "
            f"in {datamodule.path} was made with ({ours[:12]}): give the data of that run, or "
            "prepare this text with its tokenizer (headless prepare --tokenizer RUN/tokenizer)"
        )


def check_ids(checkpoint: Checkpoint, datamodule: Any, vocab_size: int) -> None:
    """Refuse data whose ids mean something else, or are of another number where no tokenizer says
    what they mean."""
    tokenizer_sha256 = checkpoint[CHECKPOINT_KEY]["tokenizer_sha256"]
    check_tokenizer(tokenizer_sha256, datamodule)
    counts_V = checkpoint.get("state_dict", {}).get("unigram_counts")  # of shards: not here
    if tokenizer_sha256 is None and counts_V is not None and len(counts_V) != vocab_size:
        raise HeadlessError(
            f"the checkpoint has {len(counts_V)} ids, one of them the end of a sequence, and the "
            f"data {vocab_size}: give the data of that run, or prepare these with its --num_items"
        )


def check_resume(cli: Any, checkpoint: Checkpoint, changes: Sequence[Change]) -> list[Change]:
    """The settings with which a run goes on from its last checkpoint otherwise than before.

    `cli` has its trainer, model and data by the new config, `changes` are those since the old one.
    Refused is what makes another run (tokenizer, data, model, objective), and a position in the
    data that these ranks and this batch size do not meet.
    """
    run = cli.run.directory
    if "position" not in checkpoint[CHECKPOINT_KEY]:
        raise HeadlessError(
            f"{run.last_checkpoint} is of an earlier version, which cannot go on: begin a new run "
            f"from its weights with --model.init_from {run.last_checkpoint} --run.name NEW"
        )
    check_tokenizer(checkpoint[CHECKPOINT_KEY]["tokenizer_sha256"], cli.datamodule)
    changes = _judge_data(checkpoint, changes, cli.datamodule)
    refused = [change for change in changes if change.is_refused]
    if refused or _shapes(checkpoint["state_dict"]) != _shapes(cli.model.state_dict()):
        kind = "model" if not refused or any(c.name[:6] == "model." for c in refused) else "run"
        which = "; ".join(map(str, refused)) or "weights of other shapes"
        raise HeadlessError(
            f"{run.path} holds another {kind} than this config describes ({which}): go on with its "
            f"own, --config {run.config}, or begin a new run from its weights with "
            f"--model.init_from {run.last_checkpoint} --run.name NEW"
        )
    find_position(checkpoint, cli.datamodule.train_sampler(cli.trainer))
    return list(changes)


def is_finished(cli: Any, checkpoint: Checkpoint) -> bool:
    """Whether a run has nothing left to do, its last report included."""
    step, trainer = int(checkpoint["global_step"]), cli.trainer
    summary = cli.run.directory.read_summary()
    if not summary.get("finished") or summary.get("steps") != step:
        return False
    sampler = cli.datamodule.train_sampler(trainer)
    epochs = find_position(checkpoint, sampler) // len(sampler)
    limits = ((trainer.max_steps, step), (trainer.max_epochs, epochs))
    return any(limit not in (None, -1) and limit <= done for limit, done in limits)


def describe(module: Any, datamodule: Any) -> dict[str, Any]:
    """What a checkpoint keeps beside weights and states, under CHECKPOINT_KEY."""
    state = {
        "batches_seen": module.batches_seen,
        "random_states": get_random_states(),
        "tokenizer_sha256": getattr(datamodule, "tokenizer_sha256", None),
        "dataset_sha256": getattr(datamodule, "dataset_sha256", None),
    }
    if hasattr(datamodule, "train_sampler"):
        sampler = datamodule.train_sampler(module.trainer)
        state["position"] = describe_position(module.batches_seen, sampler)
    return state


def _judge_data(
    checkpoint: Checkpoint, changes: Sequence[Change], datamodule: Any
) -> Sequence[Change]:
    """The same data may lie elsewhere now, and others in the same place."""
    then, now = checkpoint[CHECKPOINT_KEY]["dataset_sha256"], datamodule.dataset_sha256
    if then == now:
        return [c._replace(is_same=True) if c.name == "data.path" else c for c in changes]
    if any(change.name == "data.path" for change in changes):
        return changes
    old, new = (f"{datamodule.path} (sha256 {sha256[:12]})" for sha256 in (then, now))
    return [*changes, Change("data.path", old, new)]


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state_dict.items()}


# -- where in the data, for any number of ranks and any batch size ----------------------------


def describe_position(batches_seen: int, sampler: BlockSampler) -> dict[str, int]:
    """Where the run is, and in which steps it came there."""
    return {**sampler.position(batches_seen)._asdict(), **_step(sampler)}


def find_position(checkpoint: Checkpoint, sampler: BlockSampler) -> int:
    """The micro-batches of each rank that stand for what a run has read, as `sampler` deals them.

    Refuses what is no whole number of this sampler's steps.
    """
    state, step = checkpoint[CHECKPOINT_KEY], _step(sampler)
    position = state["position"]
    if step.items() <= position.items():
        return state["batches_seen"]
    read = position["sequences"]
    if read % (step["world_size"] * step["batch_size"] * step["accumulate"]):
        raise HeadlessError(
            f"the run has read {read} sequences of its epoch, which is no whole number of steps of "
            f"{step['world_size']} device(s) x {step['batch_size']} (data.batch_size) x "
            f"{step['accumulate']} (trainer.accumulate_grad_batches): go on with "
            f"{position['world_size']} x {position['batch_size']} x "
            f"{position['accumulate']} as before, or with any that divide {read}"
        )
    return sampler.batches_at(Position(position["epoch"], read))


def restore_position(checkpoint: Checkpoint, sampler: BlockSampler, trainer: Any) -> int:
    """`find_position`, with Lightning's own counters in the checkpoint set to it as well.

    Where the trainer cuts epochs short (limit_train_batches), its epochs are none of the data's,
    and its counters stay.
    """
    batches_seen = find_position(checkpoint, sampler)
    limit = trainer.limit_train_batches  # 1 is one batch, 1.0 all of them
    if isinstance(limit, int) or limit not in (None, 1.0) or trainer.overfit_batches:
        return batches_seen
    epoch, read = divmod(batches_seen, len(sampler))
    loops = checkpoint["loops"]["fit_loop"]
    batches, epochs = loops["epoch_loop.batch_progress"]["current"], loops["epoch_progress"]
    if batches["ready"]:  # else it stands between two epochs
        # At its end an epoch has all its batches, and the position is the next one's beginning.
        shift = (read or len(sampler)) - batches["processed"]
        for name in batches:
            batches[name] += shift
    if read and epochs["current"]["processed"] > epoch:  # an epoch that max_steps cut short
        for progress in (epochs["current"], epochs["total"]):
            progress.update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
    return batches_seen


def _step(sampler: BlockSampler) -> dict[str, int]:
    return {name: getattr(sampler, name) for name in ("world_size", "batch_size", "accumulate")}


# -- random numbers ---------------------------------------------------------------------------


def get_random_states() -> list[dict[str, Any]]:
    """Of every rank, in order, the states of Python's, numpy's, torch's and CUDA's generators."""
    numpy_state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, cached = numpy_state
    state = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def set_random_state(states: Sequence[dict[str, Any]], trainer: Any) -> None:
    """Put back a rank's states where there are as many ranks; CUDA's where the devices match."""
    if len(states) != trainer.world_size:
        return
    state = states[trainer.global_rank]
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([cuda.cpu() for cuda in state["cuda"]])
