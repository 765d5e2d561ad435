"""The weights that a run began with, as its first process kept them before the first step."""

import copy

from safetensors.torch import load_file
from torch import nn

from headless.models.backbone import build_backbone, unfilled_weights
from headless.runs.directory import RunDirectory
from headless.training.module import PretrainingModule


def first_weights(run: RunDirectory, module: PretrainingModule) -> tuple[nn.Module | None, str]:
    """The backbone of a run before its first step, or None, and a few words on where it is from.

    The sizes are those of `module`, of one of its checkpoints or in training.
    """
    if not run.first_weights.is_file():
        return None, f"not known: the run has no {run.first_weights.name}"
    eos = module.hparams["eos_token_id"]
    with unfilled_weights():
        backbone = build_backbone(
            module.backbone_config, module.vocab_size, bos_token_id=eos, eos_token_id=eos
        )
    inside = "backbone."
    weights = {k: v for k, v in load_file(run.first_weights).items() if k.startswith(inside)}
    backbone.load_state_dict({k.removeprefix(inside): v for k, v in weights.items()}, assign=True)
    return backbone.eval(), "kept by the run before its first step"


def first_module(run: RunDirectory, module: PretrainingModule) -> PretrainingModule | None:
    """A run's whole module before its first step, from the module of one of its checkpoints.

    None where it began as another model's.
    """
    began_as_another = (run.read_config().get("model") or {}).get("init_from") is not None
    if began_as_another or not run.first_weights.is_file():
        return None
    made = copy.deepcopy(module)
    made.load_state_dict(load_file(run.first_weights), assign=True)
    return made.eval()
