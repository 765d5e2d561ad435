"""`evaluations.jsonl`: one result of one task a line, appended, never overwritten."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.files import exclusive, json_lines
from headless.runs.metrics import append_point, read_metrics
from headless.structured import NUMBER, TEXT, WHOLE, check_entries

FORMAT = 1
WAIT_SECONDS = 60.0  # for another process that adds a line


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on a task."""

    task: str  # as it was written, "kind:source"
    kind: str
    source: str  # a few words for its data
    data_sha256: str  # of the items as they were scored
    model: str  # a name for tables
    head: str  # the LM head that was used
    step: int | None  # optimizer steps of the checkpoint; None for a model that is no run of ours
    metrics: dict[str, float | None]
    errors: dict[str, float]  # standard errors of the metrics over the items, where they are known
    items: int  # that were scored
    skipped: int = 0  # that could not be
    truncated: int = 0  # of those scored: whose context was cut to fit
    subsets: dict[str, dict[str, float]] = field(default_factory=dict)
    # {name: {"items", metric, metric_error}}: the same numbers of parts of the data
    settings: dict[str, Any] = field(default_factory=dict)  # what else the numbers depend on
    seconds: float = 0.0  # wall clock
    versions: dict[str, str] = field(default_factory=dict)  # of the packages
    time: str = ""  # UTC, ISO 8601
    format: int = FORMAT  # of this line

    @property
    def key(self) -> tuple[str, str, str]:
        """What two results must share for the later one to replace the earlier in a table."""
        return self.kind, self.data_sha256, self.head


_TYPES: dict[Any, tuple[type, ...]] = {str: TEXT, int: WHOLE, int | None: WHOLE, float: NUMBER}
_KINDS = {f.name: _TYPES.get(f.type, (dict,)) for f in fields(Evaluation)}
_NEEDS = [
    f.name
    for f in fields(Evaluation)
    if f.default is MISSING and f.default_factory is MISSING and f.name != "step"
]


def append_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Add a line; another process that adds its own is waited for."""
    with exclusive(path, patience=WAIT_SECONDS):
        append_point(path, asdict(evaluation))


def as_lines(evaluations: Iterable[Evaluation]) -> str:
    return json_lines(map(asdict, evaluations))


def read_evaluations(path: Path) -> list[Evaluation]:
    """All results of a file, oldest first; none where there is no file."""
    results = []
    for point in read_metrics(path):
        if point.get("format") != FORMAT:
            raise HeadlessError(
                f"{path} holds results of format {point.get('format')}, this version reads "
                f"{FORMAT}: move the file aside and evaluate again"
            )
        entries = check_entries(path, point, _KINDS, _NEEDS).items()
        values = {k: v for k, v in entries if k in _KINDS and v is not None}
        results.append(Evaluation(**{"step": None, **values}))
    return results


def latest(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The last result of each kind, data and head, in the order in which each was first made."""
    return list({evaluation.key: evaluation for evaluation in evaluations}.values())
