"""The weights that a run began with, made a second time from its config and its seed."""

import copy
import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from headless.errors import HeadlessError
from headless.geometry import anisotropy
from headless.models.backbone import build_backbone, embedding_table
from headless.runs.directory import RunDirectory
from headless.runs.metrics import read_metrics
from headless.training.initial import hugging_face_source
from headless.training.loading import is_run
from headless.training.module import PretrainingModule

# The mean cosine of the embeddings, as either monitor logged it before the first step.
LOGGED = ("geometry/anisotropy/embedding", "analysis/anisotropy/embedding")


def first_weights(run: RunDirectory, module: PretrainingModule) -> tuple[nn.Module | None, str]:
    """The backbone of a run before its first step, and a few words on where it is from.

    A run draws its backbone's weights first of all, on the CPU, so that the seed alone decides
    them; a run that began from another model (`model.init_from`) began with that one's. What comes
    out is compared with what the run logged at step 0: another version of a library may draw
    others.

    Args:
        run: with its config and its metrics.
        module: of one of its checkpoints: its sizes.

    Returns:
        None and the reason where they cannot be made again, or nothing shows that they are right.
    """
    config = run.read_config()
    source = (config.get("model") or {}).get("init_from")
    logged = _logged(run)
    if logged is None:
        return None, (
            "not known for certain: the run logged nothing at step 0 (pretrain --geometry and "
            "--laboratory do)"
        )
    try:
        backbone = _again(config, module) if source is None else _of(source)
    except HeadlessError as error:
        return None, f"not known: {error}"
    table_VD = embedding_table(backbone).detach()
    if not math.isclose(float(anisotropy(table_VD)), logged, rel_tol=1e-5, abs_tol=1e-9):
        return None, "not known: what the config makes now is not what the run logged at step 0"
    place = f"seed {config['seed_everything']}" if source is None else source
    return backbone.eval(), f"made again from {place}; the embeddings are those logged at step 0"


def first_module(run: RunDirectory, module: PretrainingModule) -> PretrainingModule | None:
    """A run's whole module before its first step, the objective's own head among it.

    Args:
        run: as of `first_weights`.
        module: of one of its checkpoints; it stays as it is.

    Returns:
        None where the backbone cannot be made again, or began as another model's.
    """
    config = run.read_config()
    if (config.get("model") or {}).get("init_from") is not None:
        return None
    if first_weights(run, module)[0] is None:
        return None
    made = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        # In the order of the module's own making: the backbone draws first.
        made.backbone = _again(config, module, keep_drawing=True)
        backbone_config: Any = made.backbone.config
        made.objective.setup(
            module.vocab_size, module.hidden_size, backbone_config.initializer_range
        )
    made.objective.set_unigram(module.unigram_counts)
    return made.eval()


def _again(
    config: dict[str, Any], module: PretrainingModule, *, keep_drawing: bool = False
) -> PreTrainedModel:
    """The backbone as its seed draws it; `keep_drawing`: what follows draws after it."""
    eos = module.hparams["eos_token_id"]
    with nullcontext() if keep_drawing else torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed_everything"])
        return build_backbone(
            module.backbone_config, module.vocab_size, bos_token_id=eos, eos_token_id=eos
        )


def _of(source: str) -> PreTrainedModel:
    if is_run(source):
        return PretrainingModule.from_checkpoint(source).backbone
    return hugging_face_source(source, with_head=False, attn_implementation="sdpa").backbone


def _logged(run: RunDirectory) -> float | None:
    for point in read_metrics(run.metrics):
        if point.get("progress/step") != 0:
            break
        for key in LOGGED:
            if key in point:
                return float(point[key])
    return None
