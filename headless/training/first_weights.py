"""The weights that a run began with, as its first process kept them before the first step."""

import copy

from safetensors.torch import load_file
from torch import nn

from headless.runs.directory import RunDirectory
from headless.training.module import PretrainingModule


def first_weights(run: RunDirectory, module: PretrainingModule) -> tuple[nn.Module | None, str]:
    """The backbone of a run before its first step, or None, and a few words on where it is from.

    Args:
        run: where the weights are kept.
        module: of one of its checkpoints; it stays as it is.
    """
    made = _with_first_weights(run, module)
    if made is None:
        return None, f"not known: the run has no {run.first_weights.name}"
    return made.backbone, "kept by the run before its first step"


def first_module(run: RunDirectory, module: PretrainingModule) -> PretrainingModule | None:
    """A run's whole module before its first step; None where that began as another model's."""
    if (run.read_config().get("model") or {}).get("init_from") is not None:
        return None
    return _with_first_weights(run, module)


def _with_first_weights(run: RunDirectory, module: PretrainingModule) -> PretrainingModule | None:
    if not run.first_weights.is_file():
        return None
    made = copy.deepcopy(module)
    made.load_state_dict(load_file(run.first_weights), assign=True)
    return made.eval()
