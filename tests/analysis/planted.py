"""Statistics of states whose answers are known, and the picture check of the laboratory's tests."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from headless.analysis.accumulators import StateStatistics, Statistics
from headless.analysis.capture import Point
from headless.analysis.finding import Finding


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


def draw_all(finding: Finding, directory: Path) -> None:
    """Every picture, without a warning."""
    assert finding.pictures
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in finding.pictures:
            picture.draw().savefig(directory / f"{picture.name}.png", dpi=40)
            assert (directory / f"{picture.name}.png").stat().st_size > 2000


def claim(finding: Finding, part: str) -> bool | None:
    """Whether the one claim with these words agrees."""
    (found,) = [c for c in finding.claims if part in c.text]
    return found.agrees
