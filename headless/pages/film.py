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
    """Frames of one size."""

    labels: tuple[str, ...]  # of the frames, e.g. "block 3"
    seconds: float  # that a frame stands
    width: int  # pixels
    height: int
    strip: Any  # a Pillow image with a palette, all frames one below the other

    @property
    def frames(self) -> list[Any]:
        """The frames, each a Pillow image with the common palette."""
        return [
            self.strip.crop((0, k * self.height, self.width, (k + 1) * self.height))
            for k in range(len(self.labels))
        ]

    def gif(self) -> bytes:
        """A GIF that repeats for ever: what slides, chats and all browsers show."""
        first, *others = self.frames
        stand, buffer = round(1000 * self.seconds), io.BytesIO()
        first.save(
            buffer,
            "GIF",
            save_all=True,
            append_images=others,
            duration=[stand] * len(others) + [HOLD * stand],
            loop=0,
            optimize=False,
            disposal=1,
        )
        return buffer.getvalue()

    def addresses(self) -> list[str]:
        """Each frame as a `data:` address of a PNG."""
        addresses = []
        for frame in self.frames:
            buffer = io.BytesIO()
            frame.save(buffer, "PNG", optimize=True)
            encoded = base64.b64encode(buffer.getvalue()).decode()
            addresses.append(f"data:image/png;base64,{encoded}")
        return addresses


def make_film(figures: Iterable[Any], labels: Iterable[str], *, seconds: float = 0.6) -> Film:
    """Draw matplotlib figures of one size into a film, a label each; one at a time, so that a
    generator may forget each before it makes the next."""
    from PIL import Image

    drawn = [_pixels(figure) for figure in figures]
    names = tuple(labels)
    if not drawn or len(drawn) != len(names):
        raise ValueError(f"{len(drawn)} frames for {len(names)} labels")
    if len({image.size for image in drawn}) > 1:
        raise ValueError(f"frames of sizes {sorted({image.size for image in drawn})}")
    width, height = drawn[0].size
    strip = Image.new("RGB", (width, height * len(drawn)))
    for k, image in enumerate(drawn):
        strip.paste(image, (0, k * height))
    return Film(names, seconds, width, height, _with_palette(strip))


def _with_palette(image: Any) -> Any:
    """Few colours; that of the corner, the paper, stays exactly what it is."""
    from PIL import Image

    method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
    quantized = image.quantize(COLOURS, method=method, dither=dither)
    paper, palette = 3 * quantized.getpixel((0, 0)), quantized.getpalette()
    palette[paper : paper + 3] = image.getpixel((0, 0))
    quantized.putpalette(palette)
    return quantized


def _pixels(figure: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with drawing_style():
        figure.set_dpi(DPI)
        figure.set_facecolor(SURFACE)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    size = canvas.get_width_height()
    return Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB")
