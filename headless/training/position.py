"""The position in the data that a checkpoint holds, for any number of ranks and any batch size."""

from typing import Any

from headless.data.blocks import BlockSampler, Position
from headless.errors import HeadlessError
from headless.training.checkpoint_io import CHECKPOINT_KEY


def describe_position(batches_seen: int, sampler: BlockSampler) -> dict[str, int]:
    """Plain values for a checkpoint: where the run is, and in which steps it came there."""
    return {**sampler.position(batches_seen)._asdict(), **_shape(sampler)}


def find_position(checkpoint: dict[str, Any], sampler: BlockSampler) -> int:
    """The micro-batches of each rank that stand for what a run has read, as `sampler` deals them.

    Raises:
        HeadlessError: what it read of its epoch is no whole number of this sampler's steps.
    """
    state = checkpoint[CHECKPOINT_KEY]
    position = state.get("position") or _position_before(checkpoint, sampler)
    shape = _shape(sampler)
    if position is None or shape.items() <= position.items():
        return state["batches_seen"]
    read = position["sequences"]
    step = shape["world_size"] * shape["batch_size"] * shape["accumulate"]
    if read % step:
        raise HeadlessError(
            f"the run has read {read} sequences of its epoch, which is no whole number of steps of "
            f"{shape['world_size']} device(s) x {shape['batch_size']} (data.batch_size) x "
            f"{shape['accumulate']} (trainer.accumulate_grad_batches): go on with "
            f"{position['world_size']} x {position['batch_size']} x "
            f"{position.get('accumulate', 1)} as before, or with any that divide {read}"
        )
    return sampler.batches_at(Position(position["epoch"], read))


def restore_position(checkpoint: dict[str, Any], sampler: BlockSampler, trainer: Any) -> int:
    """`find_position`, told to Lightning's own counters in the checkpoint as well.

    Where the trainer cuts epochs short (limit_train_batches), its epochs are none of the data's,
    and its counters stay.

    Raises:
        HeadlessError: as `find_position`.
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


def _shape(sampler: BlockSampler) -> dict[str, int]:
    return {
        "world_size": sampler.world_size,
        "batch_size": sampler.batch_size,
        "accumulate": sampler.accumulate,
    }


def _position_before(checkpoint: dict[str, Any], sampler: BlockSampler) -> dict[str, int] | None:
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
