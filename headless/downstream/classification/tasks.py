"""Which task: the columns, classes, metrics and splits of GLUE, SuperGLUE, XNLI or one's own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headless.downstream.options import Source
from headless.errors import HeadlessError
from headless.structured import read_yaml


@dataclass(frozen=True)
class TextTask:
    """A classification or regression task on sentences or pairs of sentences."""

    name: str
    text_column: str = "text"  #: "a+b": two columns, joined by ": "
    pair_column: str | None = None
    label_column: str = "label"
    classes: tuple[str, ...] = ()  #: of the data's numbers; empty: those of the training split
    metrics: tuple[str, ...] = ()  #: the first chooses the epoch; empty: what suits the labels
    regression: bool = False
    dataset: str | None = None  #: a `datasets` name
    config: str | None = None
    validation: str | None = None  #: the split to choose by; None: the first of `VALIDATION_NAMES`
    also: str | None = None  #: another split to report
    test: str | None = "test"  #: the split to report; None: there is none with labels


TABLE: dict[str, Any] = read_yaml(Path(__file__).with_name("tasks.yaml"))
EXCLUDED: dict[str, str] = TABLE.pop("left_out")
TASKS = {
    name: TextTask(
        name,
        **{"config": name, "metrics": ("accuracy",)}
        | benchmark["common"]
        | {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()},
    )
    for benchmark in TABLE.values()
    for name, fields in benchmark.items()
    if name != "common"
}


def find_task(name: str) -> TextTask | None:
    """A task of the table by its name, "name:config" for another config; None: not in the table."""
    base, _, config = name.partition(":")
    if base in EXCLUDED:
        raise HeadlessError(
            f"{base} does not fit a classifier of sentences or pairs ({EXCLUDED[base]}); "
            f"left out are {', '.join(EXCLUDED)}; there are {', '.join(TASKS)}"
        )
    if base not in TASKS:
        return None
    return replace(TASKS[base], config=config) if config else TASKS[base]


def make_task(name: str, source: Source) -> tuple[TextTask, str]:
    """The named task, or one of one's own, with the columns of `source`; and where its data is."""
    task = find_task(name) or TextTask(Path(name).stem, regression=source.regression)
    given = {
        "text_column": source.text_column,
        "pair_column": source.text_pair_column,
        "label_column": source.label_column,
        "metrics": tuple(source.metrics or ()),
    }
    place = name if task.dataset is None else ":".join(filter(None, (task.dataset, task.config)))
    return replace(task, **{k: v for k, v in given.items() if v}), source.data or place  # type: ignore[arg-type]
