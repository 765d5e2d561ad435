"""Figures for a page: a matplotlib style, and SVG that takes its colours from the page.

Colours are drawn as fixed hex values and become CSS variables in the SVG, so that one figure is
right on a light page, on a dark one and on paper. Text stays text: it is searchable, small and
set in the page's font.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headless.pages.numbers import compact

INK = "#1c2026"
MUTED = "#6a717b"
GRID = "#e3e5e9"
SURFACE = "#fdfdfe"
MOST_MARKS = 600  # of a scatter that stays vectors in an SVG
RASTER_DPI = 160  # of what does not
# Okabe and Ito's colours for all kinds of colour vision, darkened where they are text or thin
# lines; the page's style sheet holds the same and their counterparts for a dark page.
SERIES = ("#0068a8", "#cf5400", "#00855f", "#b05590", "#a87400", "#3d9bd1", "#5e636b", "#7a4fb5")

_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES)
}
_STYLE = Path(__file__).with_name("page.mplstyle")


def series_color(index: int) -> str:
    """The colour of the index-th thing that is compared; they repeat after the eighth."""
    return SERIES[index % len(SERIES)]


@contextmanager
def drawing_style() -> Iterator[None]:
    """Inside this, matplotlib draws in the page's style; its global settings come back after."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rc_file(_STYLE)
        yield


def new_figure(width: float = 7.3, height: float = 3.2) -> Any:
    """An empty figure without pyplot, laid out so that nothing overlaps; inches.

    A page's text is 7.3 inches wide, a wide figure 11.2.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def compact_ticks(axis: Any, *, log: bool = False) -> None:
    """Ticks of one axis (`axes.xaxis`) as 5k, 2M, 3.2G; with `log` it becomes logarithmic, without
    matplotlib's own labels, whose mathematics stays unset in text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        low, high = axis.get_data_interval()
        wide = low > 0 and high / low > 150  # more labels would lie on each other in a small panel
        axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=8))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def step_axis(panel: Any, steps: Sequence[int]) -> None:
    """Make a panel's x axis logarithmic in steps, with a step 0 at its left edge."""
    positive = sorted(step for step in steps if step > 0) or [1]
    first, last = positive[0], positive[-1]
    panel.set_xscale("symlog", linthresh=first, linscale=0.5)
    # A label that is no power of ten keeps the powers near it away.
    powers = [10**k for k in range(20) if 2 * first < 10**k < last / 2]
    ticks = sorted({min(steps), first, *powers, last})
    panel.set_xticks(ticks, [compact(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_xlim(0.93 * min(steps) or -0.1 * first, 1.08 * last)


def render_svg(figure: Any) -> str:
    """A matplotlib figure as an `<svg>` element to put into a page: see `clean_svg`."""
    return clean_svg(svg_file(figure))


def svg_file(figure: Any) -> str:
    """A matplotlib figure as the text of an SVG file: no date, the same figure is the same bytes.

    Flat scatters and meshes of more than `MOST_MARKS` marks become pixels inside it.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    _rasterize(figure)
    with drawing_style():
        if layout := figure.get_layout_engine():
            layout.execute(figure)  # savefig would draw everything twice to do so
            figure.set_layout_engine("none")
        figure.savefig(buffer, format="svg", metadata=metadata, dpi=RASTER_DPI)
    return buffer.getvalue()


def _rasterize(figure: Any) -> None:
    """What would be hundreds of kilobytes of paths, but for what stands in three dimensions, which
    matplotlib does not rasterize by itself."""
    from matplotlib.collections import PathCollection, QuadMesh

    for artist in [artist for axes in figure.axes for artist in axes.collections]:
        marks: Any = artist.get_offsets() if isinstance(artist, PathCollection) else ()
        values = artist.get_array() if isinstance(artist, QuadMesh) else None
        count = len(marks) if values is None else values.size
        if count > MOST_MARKS and getattr(artist.draw, "_supports_rasterization", False):
            artist.set_rasterized(True)


def clean_svg(text: str) -> str:
    """The `<svg>` element of an SVG file, without prologue, metadata, namespaces and fixed size.

    Colours are CSS variables with the light page's value to fall back on.
    """
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", opening)
    box = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', opening)
    if box:  # its natural width, so that several figures share one scale; the style sheet shrinks
        opening = re.sub(r'\s(?:width|height)="[^"]*"', "", opening)
        opening += f' style="width: {float(box.group(1)) / 72:.3f}in"'
    svg = f"{opening}>{rest}".replace("xlink:href=", "href=")
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    svg = re.sub(
        r"(font: (?:[\w ]+ )?)([\d.]+)px [^;]*;", r"\g<1>\g<2>px var(--font, sans-serif);", svg
    )
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    used_ids = {name for pair in used for name in pair if name}
    svg = re.sub(
        r'\sid="([^"]*)"', lambda match: match.group(0) if match.group(1) in used_ids else "", svg
    )
    for colour, name in _VARIABLES.items():
        svg = re.sub(colour, f"var(--{name}, {colour})", svg, flags=re.IGNORECASE)
    return re.sub(r"\n\s*", "\n", svg).strip()


def prefix_ids(svg: str, prefix: str) -> str:
    """The SVG with every id, and every reference to one, prefixed: ids must be unique in a page."""
    svg = re.sub(r'(\sid=")', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'(\shref="#)', rf"\g<1>{prefix}", svg)
    return re.sub(r"url\(#", f"url(#{prefix}", svg)
