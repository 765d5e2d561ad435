"""The verb: perplexity and zero-shot tasks, with standard errors."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headless.downstream.evaluation.harness import evaluate_harness, open_harness
from headless.downstream.evaluation.kinds import check_kinds, evaluate_items
from headless.downstream.evaluation.tasks import (
    Items,
    Task,
    describe_unread,
    parse_tasks,
    read_items,
)
from headless.downstream.export import DESCRIPTION
from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import EvaluateOptions, write_output
from headless.errors import HeadlessError
from headless.isolation import isolated
from headless.progress import Display, Report
from headless.runs.directory import RunDirectory
from headless.runs.evaluations import Evaluation, append_evaluation, as_lines, read_evaluations

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Evaluations:
    """What `evaluate` returns."""

    model: str  #: as it was named
    head: str  #: see `LanguageModel`
    results: list[Evaluation]  #: in the order of the tasks
    files: list[Path]  #: that they were written to

    def frame(self) -> "pandas.DataFrame":
        """A row for each metric of each task: task, metric, value, its standard error, items."""
        import pandas

        rows = [
            (result.task, name, value, result.errors.get(name), result.items)
            for result in self.results
            for name, value in result.metrics.items()
        ]
        return pandas.DataFrame(rows, columns=["task", "metric", "value", "error", "items"])

    def _repr_html_(self) -> str:
        return self.frame()._repr_html_()


@isolated()
def evaluate(
    model: str | Path | LanguageModel,
    tasks: str | list[str],
    *,
    progress: bool | Report = False,
    **options: Any,
) -> Evaluations:
    """Perplexity and zero-shot tasks of any model, with the definitions of lm-evaluation-harness.

    The results of a run, or of an export of one, are added to its evaluations.jsonl.

    Args:
        model: as of `load`, or one that is open.
        tasks: KIND:SOURCE, several with commas between or as a list.
        progress: show it, or a function that gets (task, rows that are scored, rows in all).
        **options: see `EvaluateOptions`.
    """
    display = Display(progress)
    place = model.place if isinstance(model, LanguageModel) else str(model)
    settings = EvaluateOptions(place, tasks, **options)
    tasks_items = _read_tasks(settings, display)  # what is wrong shows before a model is opened
    lm = load(
        model,
        head=settings.head,
        device=settings.device,
        dtype=getattr(torch, settings.dtype),
        trust_remote_code=settings.trust_remote_code,
        needs_head=True,
    )
    check_kinds(lm, list(tasks_items))
    file = results_file(lm.directory)
    if file is not None:
        read_evaluations(file)  # a damaged file shows before the work
    scoring: Any = {"batch_size": settings.batch_size, "max_length": settings.max_length}
    results: list[Evaluation] = []
    with display:
        for task, items in tasks_items.items():
            if not isinstance(items, Items):
                scored = evaluate_harness(lm, task, items, **scoring, limit=settings.limit)
            else:
                report, stride = partial(display.report, str(task)), settings.stride
                scored = [evaluate_items(lm, items, **scoring, stride=stride, progress=report)]
            results += scored
            try:  # after each task: a later one may fail
                for evaluation in scored:
                    if file is not None:
                        append_evaluation(file, evaluation)
            except (HeadlessError, PermissionError) as error:
                reason = f"{file} cannot be written" if isinstance(error, OSError) else str(error)
                if settings.output is None:
                    raise HeadlessError(f"{reason}; --output FILE writes elsewhere") from error
                display.say(f"{reason}; the results go to {settings.output} alone")
                file = None
    write_output(settings.output, as_lines(results))
    files = [Path(path) for path in (file, settings.output) if path]
    return Evaluations(lm.place, lm.head, results, files)


def _read_tasks(settings: EvaluateOptions, display: Display) -> dict[Task, Any]:
    """The `Items` of each task; of the harness's what it needs to run them."""
    tasks: dict[Task, Any] = {}
    for task in parse_tasks(settings.tasks):
        if task.kind == "harness":
            tasks[task] = open_harness(task)
            continue
        tasks[task] = read_items(
            task, limit=settings.limit, split=settings.split, text_field=settings.text_field
        )
        if line := describe_unread(task, settings.text_field):
            display.say(line)
    return tasks


def results_file(directory: Path | None) -> Path | None:
    """evaluations.jsonl of a run or of an export of one; None for what is neither."""
    if directory is None:
        return None
    run = RunDirectory(directory)
    is_headless = run.config.is_file() or (directory / DESCRIPTION).is_file()
    return run.evaluations if is_headless else None
