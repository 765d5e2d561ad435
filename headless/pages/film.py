"""Moving pictures: figures drawn one after the other on one canvas, for a page and for slides.

The frames share one palette of 256 colours, which keeps them small and steady; the same figures
are the same bytes. They are drawn on the light page's surface: pixels cannot follow a dark page.
"""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headless.pages.figures import SURFACE, drawing_style

DPI = 96
COLOURS = 256
HOLD = 3  # how much longer than others the last frame of a GIF stands


@dataclass(frozen=True)
class Film:
    """Frames of one size: Pillow images with one palette."""

    labels: tuple[str, ...]  # of the frames, e.g. "block 3"
    seconds: float  # that a frame stands
    frames: tuple[Any, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Pixels: width and height."""
        return self.frames[0].size

    def gif(self) -> bytes:
        """A GIF that repeats for ever: what slides, chats and all browsers show."""
        first, *others = self.frames
        stand, buffer = round(1000 * self.seconds), io.BytesIO()
        duration = [stand] * len(others) + [HOLD * stand]
        first.save(
            buffer, "GIF", save_all=True, append_images=others, duration=duration, loop=0,
            optimize=False, disposal=1,
        )  # fmt: skip
        return buffer.getvalue()

    def addresses(self) -> list[str]:
        """Each frame as a `data:` address of a PNG."""
        buffers = [io.BytesIO() for _ in self.frames]
        for frame, buffer in zip(self.frames, buffers, strict=True):
            frame.save(buffer, "PNG", optimize=True)
        encoded = [base64.b64encode(buffer.getvalue()).decode() for buffer in buffers]
        return [f"data:image/png;base64,{text}" for text in encoded]


def make_film(figures: Iterable[Any], labels: Iterable[str], *, seconds: float = 0.6) -> Film:
    """Draw matplotlib figures of one size into a film, a label each; one at a time, so that a
    generator may forget each before it makes the next."""
    from PIL import Image

    drawn = [_pixels(figure) for figure in figures]
    width, height = drawn[0].size
    strip: Any = Image.new("RGB", (width, height * len(drawn)))
    for k, image in enumerate(drawn):
        strip.paste(image, (0, k * height))
    method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
    coded: Any = strip.quantize(COLOURS, method=method, dither=dither)
    # The corner's colour, the paper, stays exactly what it is.
    paper, palette = 3 * coded.getpixel((0, 0)), coded.getpalette()
    palette[paper : paper + 3] = strip.getpixel((0, 0))
    coded.putpalette(palette)
    boxes = [(0, k * height, width, (k + 1) * height) for k in range(len(drawn))]
    return Film(tuple(labels), seconds, tuple(coded.crop(box) for box in boxes))


def _pixels(figure: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with drawing_style():
        figure.set(dpi=DPI, facecolor=SURFACE)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    size = canvas.get_width_height()
    return Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB")
