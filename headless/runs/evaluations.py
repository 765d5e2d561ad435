"""`evaluations.jsonl`: one result of one task a line, appended, never overwritten."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.files import exclusive, json_lines
from headless.runs.metrics import append_point, read_metrics

FORMAT = 1
WAIT_SECONDS = 60.0  # for another process that adds a line


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on a task.

    Args:
        task: as it was written, "kind:source".
        kind: of the task.
        source: a few words for its data.
        data_sha256: of the items as they were scored.
        model: a name for tables.
        head: the LM head that was used.
        step: optimizer steps of the checkpoint; None for a model that is no run of ours.
        metrics: the numbers by name.
        errors: their standard errors over the items, where they are known.
        items: how many were scored.
        skipped: how many could not be.
        truncated: how many of those scored had their context cut to fit.
        subsets: the same numbers of parts of the data: {name: {"items", metric, metric_error}}.
        settings: what else the numbers depend on.
        seconds: wall clock.
        versions: of the packages.
        time: when, UTC, ISO 8601.
        format: of this line.
    """

    task: str
    kind: str
    source: str
    data_sha256: str
    model: str
    head: str
    step: int | None
    metrics: dict[str, float | None]
    errors: dict[str, float]
    items: int
    skipped: int = 0
    truncated: int = 0
    subsets: dict[str, dict[str, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    time: str = ""
    format: int = FORMAT

    @property
    def key(self) -> tuple[str, str, str]:
        """What two results must share for the later one to replace the earlier in a table."""
        return self.kind, self.data_sha256, self.head


def append_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Add a line; another process that adds its own is waited for.

    Raises:
        HeadlessError: there is no right to write there.
        OSError: there is no room.
    """
    with exclusive(path, patience=WAIT_SECONDS):
        append_point(path, asdict(evaluation))


def lines_of(evaluations: Iterable[Evaluation]) -> str:
    """The text of a file of results."""
    return json_lines(map(asdict, evaluations))


def read_evaluations(path: Path) -> list[Evaluation]:
    """All results of a file, oldest first; none where there is no file.

    Raises:
        HeadlessError: a damaged line, or one of another version.
    """
    known = {f.name for f in fields(Evaluation)}
    found = []
    for point in read_metrics(path):
        if point.get("format") != FORMAT:
            raise HeadlessError(
                f"{path} holds results of format {point.get('format')}, this version reads "
                f"{FORMAT}: move the file aside and evaluate again"
            )
        try:
            found.append(Evaluation(**{k: v for k, v in point.items() if k in known}))
        except TypeError as error:
            raise HeadlessError(f"{path} is damaged ({error}): move it aside") from error
    return found


def latest(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The last result of each kind, data and head, in the order in which each was first made."""
    return list({evaluation.key: evaluation for evaluation in evaluations}.values())
