"""Figures for a page: a matplotlib style, and SVG that takes its colours from the page.

Colours are drawn as fixed hex values and become CSS variables in the SVG, so that one figure is
right on a light page, on a dark one and on paper. Text stays text: it is searchable, small and
set in the page's font.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headless.pages.numbers import compact

INK = "#1c2026"
MUTED = "#6a717b"
GRID = "#e3e5e9"
SURFACE = "#fdfdfe"
# Okabe and Ito's colours for all kinds of colour vision, darkened where they are text or thin
# lines; the page's style sheet holds the same and their counterparts for a dark page.
SERIES = ("#0068a8", "#cf5400", "#00855f", "#b05590", "#a87400", "#3d9bd1", "#5e636b", "#7a4fb5")

_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES)
}
_STYLE: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.facecolor": SURFACE,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.visible": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",  # text as text
    "svg.hashsalt": "headless",  # the same figure is the same bytes
    "path.simplify": True,
}


def series_color(index: int) -> str:
    """The colour of the index-th thing that is compared; they repeat after the eighth."""
    return SERIES[index % len(SERIES)]


@contextmanager
def drawing_style() -> Iterator[None]:
    """Inside this, matplotlib draws in the page's style; its global settings come back after."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def new_figure(width: float = 7.3, height: float = 3.2) -> Any:
    """An empty figure without pyplot, laid out so that nothing overlaps; inches.

    A page's text is 7.3 inches wide, a wide figure 11.2.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def compact_ticks(axis: Any, *, log: bool = False) -> None:
    """Ticks of one axis (`axes.xaxis`) as 5k, 2M, 3.2G; with `log` that axis is logarithmic.

    Matplotlib's own logarithmic labels are mathematics, which stays unset in text.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        low, high = axis.get_data_interval()
        wide = low > 0 and high / low > 1e3
        axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=8))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def render_svg(figure: Any) -> str:
    """A matplotlib figure as an `<svg>` element to put into a page.

    Colours are CSS variables with the light page's value to fall back on; there is no date, no
    metadata and no address in it.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing_style():
        figure.savefig(buffer, format="svg", metadata=metadata)
    return clean_svg(buffer.getvalue())


def clean_svg(text: str) -> str:
    """The `<svg>` element of an SVG file, without prologue, metadata, namespaces and fixed size."""
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
