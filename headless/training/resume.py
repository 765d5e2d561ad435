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
from headless.runs.directory import RunDirectory
from headless.runs.resume import Change
from headless.training.checkpoint_io import CHECKPOINT_KEY

Checkpoint = dict[str, Any]

# -- whether it may ---------------------------------------------------------------------------


def check_tokenizer(theirs: str | None, datamodule: Any) -> None:
    """Refuse data whose tokens are others than those of a checkpoint."""
    ours = getattr(datamodule, "tokenizer_sha256", None)
    if theirs and ours and theirs != ours:
        raise HeadlessError(
            f"the checkpoint was trained with another tokenizer ({theirs[:12]}) than the data "
            f"in {datamodule.path} was made with ({ours[:12]}): give the data of that run, or "
            "prepare this text with its tokenizer (headless prepare --tokenizer RUN/tokenizer)"
        )


def check_resume(
    run: RunDirectory,
    checkpoint: Checkpoint,
    changes: Sequence[Change],
    trainer: Any,
    module: Any,
    datamodule: Any,
) -> list[Change]:
    """The settings with which a run goes on from its last checkpoint otherwise than before.

    Args:
        changes: in what the run's config differs from the new one, which describes trainer, module
            and data.

    Raises:
        HeadlessError: another tokenizer, other data, another model or another objective, whatever
            makes another run; or a position in the data that these ranks and this batch size do
            not meet.
    """
    check_tokenizer(checkpoint[CHECKPOINT_KEY]["tokenizer_sha256"], datamodule)
    changes = _judge_data(run, checkpoint, changes, datamodule)
    refused = [change for change in changes if change.is_refused]
    if refused or _shapes(checkpoint["state_dict"]) != _shapes(module.state_dict()):
        kind = "model" if not refused or any(c.name[:6] == "model." for c in refused) else "run"
        which = "; ".join(map(str, refused)) or "weights of other shapes"
        raise HeadlessError(
            f"{run.path} holds another {kind} than this config describes ({which}): go on with its "
            f"own, --config {run.config}, or begin a new run from its weights with "
            f"--model.init_from {run.last_checkpoint} --run.name NEW"
        )
    find_position(checkpoint, datamodule.train_sampler(trainer))
    return list(changes)


def is_finished(run: RunDirectory, checkpoint: Checkpoint, trainer: Any, datamodule: Any) -> bool:
    """Whether a run has nothing left to do, its last report included."""
    step = int(checkpoint["global_step"])
    summary = run.read_summary()
    if not summary.get("finished") or summary.get("steps") != step:
        return False
    sampler = datamodule.train_sampler(trainer)
    epochs = find_position(checkpoint, sampler) // len(sampler)
    limits = ((trainer.max_steps, step), (trainer.max_epochs, epochs))
    return any(limit not in (None, -1) and limit <= done for limit, done in limits)


def _judge_data(
    run: RunDirectory, checkpoint: Checkpoint, changes: Sequence[Change], datamodule: Any
) -> Sequence[Change]:
    """The same data may lie elsewhere now, and others in the same place."""
    state = checkpoint[CHECKPOINT_KEY]
    then = state.get("dataset_sha256") or run.read_summary().get("dataset_sha256")
    now = getattr(datamodule, "dataset_sha256", None)
    if then is None or now is None:
        return changes
    if then == now:
        return [c._replace(is_same=True) if c.name == "data.path" else c for c in changes]
    if any(change.name == "data.path" for change in changes):
        return changes
    path = datamodule.path
    other = Change("data.path", f"{path} (sha256 {then[:12]})", f"{path} (sha256 {now[:12]})")
    return [*changes, other]


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state_dict.items()}


# -- where in the data, for any number of ranks and any batch size ----------------------------


def describe_position(batches_seen: int, sampler: BlockSampler) -> dict[str, int]:
    """Where the run is, and in which steps it came there."""
    return {**sampler.position(batches_seen)._asdict(), **_step(sampler)}


def find_position(checkpoint: Checkpoint, sampler: BlockSampler) -> int:
    """The micro-batches of each rank that stand for what a run has read, as `sampler` deals them.

    Refuses what is no whole number of this sampler's steps.
    """
    state = checkpoint[CHECKPOINT_KEY]
    position = state.get("position") or _position_before(checkpoint, sampler)
    step = _step(sampler)
    if position is None or step.items() <= position.items():
        return state["batches_seen"]
    read = position["sequences"]
    if read % (step["world_size"] * step["batch_size"] * step["accumulate"]):
        raise HeadlessError(
            f"the run has read {read} sequences of its epoch, which is no whole number of steps of "
            f"{step['world_size']} device(s) x {step['batch_size']} (data.batch_size) x "
            f"{step['accumulate']} (trainer.accumulate_grad_batches): go on with "
            f"{position['world_size']} x {position['batch_size']} x "
            f"{position.get('accumulate', 1)} as before, or with any that divide {read}"
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


def _position_before(checkpoint: Checkpoint, sampler: BlockSampler) -> dict[str, int] | None:
    """Of a checkpoint that counts a rank's micro-batches only: ranks and batch size follow from it.

    None where they do not, as after a resume on another number of ranks: they count as today's.
    """
    batches = checkpoint[CHECKPOINT_KEY]["batches_seen"]
    world_size = len(checkpoint[CHECKPOINT_KEY]["random_states"])
    length = checkpoint["hyper_parameters"]["sequence_length"]
    tokens = checkpoint["callbacks"].get("ProgressMonitor", {}).get("tokens", 0)
    if not batches or not tokens or tokens % (batches * world_size * length):
        return None
    batch_size = tokens // (batches * world_size * length)
    then = BlockSampler(sampler.num_blocks, batch_size, world_size=world_size)
    # How many micro-batches made a step is not known: today's.
    return describe_position(batches, then) | {"accumulate": sampler.accumulate}


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


def set_random_state(state: dict[str, Any]) -> None:
    """Put back the states of one rank; those of CUDA only where the devices match."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([cuda.cpu() for cuda in state["cuda"]])
