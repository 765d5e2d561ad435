"""The weights that a run began with, made a second time from its config and its seed."""

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from headless.errors import HeadlessError
from headless.geometry import anisotropy
from headless.models.backbone import build_backbone, embedding_table
from headless.runs.directory import RunDirectory
from headless.runs.metrics import read_metrics
from headless.training.initial import open_source
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


def _again(config: dict[str, Any], module: PretrainingModule) -> PreTrainedModel:
    eos = module.hparams["eos_token_id"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed_everything"])
        return build_backbone(
            module.backbone_config, module.vocab_size, bos_token_id=eos, eos_token_id=eos
        )


def _of(source: str) -> PreTrainedModel:
    return open_source(source, with_head=False).backbone


def _logged(run: RunDirectory) -> float | None:
    for point in read_metrics(run.metrics):
        if point.get("progress/step") != 0:
            break
        for key in LOGGED:
            if key in point:
                return float(point[key])
    return None
