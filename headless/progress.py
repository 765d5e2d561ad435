"""One display of progress: a bar in a terminal, a line every ten seconds in a log."""

import sys
import time
from collections.abc import Callable
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Report = Callable[[str, int, int], None]  # phase, done, in all (0: not known)
LINE_SECONDS = 10.0
REDRAW_SECONDS = 0.1


class Display:
    """Progress and messages on standard error, or nowhere.

    Args:
        progress: True shows it; a function gets `(phase, done, in all)` instead; False is silent.
        unit: "MB" for numbers that are bytes.
    """

    def __init__(self, progress: "bool | Report" = True, unit: Literal["", "MB"] = "") -> None:
        self.shown, self.unit = progress is True, unit
        self.listener = progress if callable(progress) else None
        console = Console(stderr=True)
        self.live = self.shown and console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.phase = ""
        self.logged: set[tuple[str, bool]] = set()  # phases, begun or done, that have their line
        self.drawn = self.printed = 0.0

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    @property
    def is_wanted(self) -> bool:
        """Whether anybody looks."""
        return self.shown or self.listener is not None

    def is_due(self, done: int = 0, total: int = 0) -> bool:
        """Whether a report now would be shown: what costs time to know can wait for that."""
        if self.listener is not None or (total and done == total):
            return True
        now, every = time.monotonic(), REDRAW_SECONDS if self.live else LINE_SECONDS
        return self.shown and now - (self.drawn if self.live else self.printed) >= every

    def report(self, phase: str, done: int, total: int, detail: str = "") -> None:
        """Say how far a phase is, with a `detail` beside the bar; another phase begins another bar.

        `done` and `total` (0 where it is not known) are units, or bytes.
        """
        if self.listener is not None:
            self.listener(phase, done, total)
        elif self.shown and (phase != self.phase or self.is_due(done, total)):
            self.phase, self.drawn = phase, time.monotonic()
            if self.live:
                self._draw(phase, done, total, detail)
                return
            point = (phase, done == total)
            if point not in self.logged or self.drawn - self.printed >= LINE_SECONDS:
                self.logged.add(point)
                self.printed = self.drawn
                words = f"{phase}: {self._amount(done, total)} {detail}".rstrip()
                print(words, file=sys.stderr, flush=True)  # noqa: T201

    def _draw(self, phase: str, done: int, total: int, detail: str) -> None:
        self.bars.start()
        if phase not in self.tasks:
            self.tasks[phase] = self.bars.add_task(escape(phase), amount="", detail="")
        self.bars.update(
            self.tasks[phase],
            completed=done,
            total=total or None,
            amount=self._amount(done, total),
            detail=escape(detail),
        )

    def _amount(self, done: int, total: int) -> str:
        if self.unit:
            size = f" of {total / 1e6:.1f}" if total else ""
            return f"{done / 1e6:.1f}{size} {self.unit}"
        return f"{done:,} of {total:,}" if total else f"{done:,}"

    def say(self, message: str) -> None:
        """A line for the user, beside the bars."""
        if self.shown:
            print(f"headless: {message}", file=sys.stderr, flush=True)  # noqa: T201
