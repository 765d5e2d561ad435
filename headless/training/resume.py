"""Whether a run can go on from its checkpoint as it is asked to, before anything is written."""

from collections.abc import Mapping, Sequence
from typing import Any

from headless.errors import HeadlessError
from headless.runs.directory import RunDirectory
from headless.runs.resume import Change
from headless.training.checkpoint_io import CHECKPOINT_KEY
from headless.training.position import find_position


def check_tokenizer(theirs: str | None, datamodule: Any) -> None:
    """Refuse data whose tokens are others than those of a checkpoint.

    Raises:
        HeadlessError: says what to do.
    """
    ours = getattr(datamodule, "tokenizer_sha256", None)
    if theirs and ours and theirs != ours:
        raise HeadlessError(
            f"the checkpoint was trained with another tokenizer ({theirs[:12]}) than the data "
            f"in {datamodule.path} was made with ({ours[:12]}): give the data of that run, or "
            "prepare this text with its tokenizer (headless prepare --tokenizer RUN/tokenizer)"
        )


def check_resume(
    run: RunDirectory,
    checkpoint: dict[str, Any],
    found: Sequence[Change],
    trainer: Any,
    module: Any,
    datamodule: Any,
) -> list[Change]:
    """The settings with which the run goes on in another way than it came here.

    Args:
        run: its directory.
        checkpoint: its last one.
        found: in what its config differs from the one that is asked for.
        trainer: with the ranks that are asked for.
        module: as the config that is asked for describes it.
        datamodule: likewise.

    Raises:
        HeadlessError: another tokenizer, other data, another model or another objective, whatever
            makes another run; or a position in the data that these ranks and this batch size do
            not meet.
    """
    check_tokenizer(checkpoint[CHECKPOINT_KEY]["tokenizer_sha256"], datamodule)
    found = _judge_data(run, checkpoint, found, datamodule)
    refused = [change for change in found if change.is_refused]
    if refused or _shapes(checkpoint["state_dict"]) != _shapes(module.state_dict()):
        kind = "model" if not refused or any(c.name[:6] == "model." for c in refused) else "run"
        which = "; ".join(map(str, refused)) or "weights of other shapes"
        raise HeadlessError(
            f"{run.path} holds another {kind} than this config describes ({which}): go on with its "
            f"own, --config {run.config}, or begin a new run from its weights with "
            f"--model.init_from {run.last_checkpoint} --run.name NEW"
        )
    find_position(checkpoint, datamodule.train_sampler(trainer))
    return list(found)


def is_finished(
    run: RunDirectory, checkpoint: dict[str, Any], trainer: Any, datamodule: Any
) -> bool:
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
    run: RunDirectory, checkpoint: Mapping[str, Any], found: Sequence[Change], datamodule: Any
) -> list[Change]:
    """The same data may lie elsewhere now, and others in the same place."""
    state = checkpoint[CHECKPOINT_KEY]
    then = state.get("dataset_sha256") or run.read_summary().get("dataset_sha256")
    now = getattr(datamodule, "dataset_sha256", None)
    if then is None or now is None:
        return list(found)
    if then == now:
        return [c._replace(is_same=True) if c.name == "data.path" else c for c in found]
    if any(change.name == "data.path" for change in found):
        return list(found)
    path = datamodule.path
    other = Change("data.path", f"{path} (sha256 {then[:12]})", f"{path} (sha256 {now[:12]})")
    return [*found, other]


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state_dict.items()}
