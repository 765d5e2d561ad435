"""Statistics of states whose answers are known, and the picture check of the laboratory's tests."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headless.analysis.record import Finding, Measure, Place, Series
from headless.analysis.session import Session, Subject
from headless.analysis.states.accumulators import StateStatistics, Statistics
from headless.analysis.states.capture import Point, capture
from headless.analysis.states.families import backbone_of, family_of
from headless.models.backbone import blocks


def gather(x_CTD: Tensor, reservoir: int = 1000) -> Statistics:
    """What `measure` would give at a point with these states of C sequences."""
    metric = StateStatistics(x_CTD.shape[2], x_CTD.shape[1], reservoir=reservoir)
    metric.update(x_CTD, torch.arange(len(x_CTD)))
    return metric.compute()


def gaussian(sequences: int = 60, length: int = 33, width: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sequences, length, width, generator=generator, dtype=torch.float64)


def stream(states: list[Tensor], component: str = "post") -> dict[Point, Statistics]:
    return {Point(component, i): gather(x) for i, x in enumerate(states)}  # type: ignore[arg-type]


def weights_lab(backbone: Any, head: Tensor | None = None, initial: Any = None) -> Session:
    """A session on weights alone."""
    linear = None if head is None else SimpleNamespace(weight=head)
    model = SimpleNamespace(base_model=backbone, get_output_embeddings=lambda: linear)
    return Session(Subject("planted", model, initial=initial))


def text_lab(model: Any, sequences_NT: Tensor, **subject: Any) -> Session:
    """A session on a model that is run on a text."""
    return Session(Subject("planted", model, sequences_NT=sequences_NT, **subject))


def states_lab(
    statistics: dict[Point, Statistics], tables: dict[str, Tensor] | None = None, **more: Any
) -> Any:
    """What an analysis of states sees of a session; `config` is the backbone's."""
    backbone = SimpleNamespace(config=SimpleNamespace(**more.pop("config", {})))
    subject = SimpleNamespace(
        sequences_NT=torch.zeros(1, 1),
        counts_V=more.pop("counts_V", None),
        has_head=True,
        backbone=backbone,
        model=None,
        initial=None,
    )
    known = {"tables": tables or {}, "whole_tables": tables or {}, "table_rows": slice(None)}
    known |= {"seed": 0, "claims_only": False, "umap": False, "checkpoints": None}
    return SimpleNamespace(statistics=statistics, subject=subject, **known | more)


def plain(
    name: str, scalars: dict[str, float], arrays: dict[str, Any] | None = None, **more: Any
) -> Finding:
    """A finding of numbers and arrays by their keys."""
    places = tuple(Place(key.removeprefix(f"{name}/")) for key in scalars)
    series = {"": Series(Measure(""), places, np.array(list(scalars.values()), dtype=float))}
    payloads = {key: {Place(): array} for key, array in (arrays or {}).items()}
    return Finding(series, payloads, name=name, **more)


def draw_all(finding: Finding, directory: Path) -> None:
    """Every picture, without a warning; each of its panels shows something."""
    assert finding.pictures
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in finding.pictures:
            figure = picture.draw()
            figure.savefig(directory / f"{picture.name}.png", dpi=40)
            shown = [panel for panel in figure.axes if panel.get_visible()]
            assert any(panel.has_data() for panel in shown), picture.name
            empty = [panel for panel in shown if panel.axison and not panel.has_data()]
            assert not [panel for panel in empty if panel.name != "3d"], picture.name


def claim(finding: Finding, part: str) -> bool | None:
    """Whether the one claim with these words agrees."""
    (found,) = [c for c in finding.claims if part in c.text]
    return found.agrees


@torch.no_grad()
def identity_errors(model: nn.Module, input_ids_BT: Tensor) -> dict[int, float]:
    """How far each block is from what its kind says of it: the self-test of the hooks.

    Pre-norm blocks are added up in the model's own precision, as the model does: 0 exactly. The
    others differ by rounding: a parallel block adds in an order of its own, and the norms of a
    post-norm block are computed in float64.

    Returns:
        For each block the largest absolute difference, relative to the largest state.

    Raises:
        HeadlessError: an unknown family.
    """
    backbone = backbone_of(model)
    family, states = family_of(backbone), {}

    def keep(point: Point, state: Tensor) -> None:
        states[point] = state.clone()

    was_training = backbone.training
    backbone.eval()
    with capture(backbone, keep):
        backbone(input_ids=input_ids_BT, **({} if family.post_norm else {"use_cache": False}))
    backbone.train(was_training)
    errors = {}
    stream = states[Point("embed", -1)]
    for i, block in enumerate(blocks(backbone)):
        attn, mlp, post = (states[Point(c, i)] for c in ("attn", "mlp", "post"))
        if family.post_norm:
            norm1, norm2 = (_double(block.get_submodule(n)) for n in (family.norm1, family.norm2))
            mid = states[Point("mid", i)]
            gaps = [norm1(stream + attn) - mid, norm2(mid + mlp) - post]
        elif family.parallel(backbone.config):
            gaps = [stream + attn + mlp - post]
        else:
            mid = states[Point("mid", i)]
            gaps = [stream + attn - mid, mid + mlp - post]
        errors[i] = max(float(gap.abs().max()) for gap in gaps) / float(post.abs().max())
        stream = post
    return errors


def _double(norm: Any) -> Callable[[Tensor], Tensor]:
    """A LayerNorm in float64, apart from the model."""
    weight, bias = norm.weight.double(), norm.bias.double()
    shape = norm.normalized_shape
    return lambda x: nn.functional.layer_norm(x.double(), shape, weight, bias, norm.eps)
