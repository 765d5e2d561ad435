"""The kinds of figures: each draws a finding from a `Figure` row."""

from headless.analysis.drawing.by_depth import Panel, by_depth
from headless.analysis.drawing.by_kind import Ranks, by_rank, density
from headless.analysis.drawing.cloud import cloud
from headless.analysis.drawing.map import heatmap

__all__ = ["Panel", "Ranks", "by_depth", "by_rank", "cloud", "density", "heatmap"]
