"""The verb: perplexity and zero-shot tasks, with standard errors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headless.downstream.evaluation.harness import check_harness, evaluate_harness
from headless.downstream.evaluation.kinds import Options, check_kinds, evaluate_items
from headless.downstream.evaluation.tasks import Items, Task, left_out, parse_tasks, read_items
from headless.downstream.export import DESCRIPTION
from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import EvaluateOptions, write_output
from headless.errors import HeadlessError
from headless.isolation import isolated
from headless.progress import Display, Report
from headless.runs.directory import RunDirectory
from headless.runs.evaluations import Evaluation, append_evaluation, lines_of, read_evaluations

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Evaluations:
    """What `evaluate` returns."""

    model: str  #: what was evaluated, as it was named
    head: str  #: under which LM head
    results: list[Evaluation]  #: one a task, in their order
    files: list[Path]  #: where they were written

    def frame(self) -> "pandas.DataFrame":
        """A row for each metric of each task: task, metric, value, its standard error, items."""
        import pandas

        rows = [
            (one.task, name, value, one.errors.get(name), one.items)
            for one in self.results
            for name, value in one.metrics.items()
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
        tasks: KIND:SOURCE, several with commas between or as a list: see `EvaluateOptions`.
        progress: show it, or a function that gets (task, rows that are scored, rows in all).
        **options: see `EvaluateOptions`.
    """
    display = Display(progress)
    place = model.place if isinstance(model, LanguageModel) else str(model)
    wanted = EvaluateOptions(place, tasks, **options)
    parsed = parse_tasks(wanted.tasks)
    items: dict[Task, Items] = {}
    for task in parsed:  # all that can be wrong with the words, before a model is opened
        if task.kind == "harness":
            check_harness(task)
            continue
        items[task] = read_items(
            task, limit=wanted.limit, split=wanted.split, text_field=wanted.text_field
        )
        if line := left_out(task, wanted.text_field):
            display.say(line)
    lm = load(
        model,
        head=wanted.head,
        device=wanted.device,
        dtype=getattr(torch, wanted.dtype),
        trust_remote_code=wanted.trust_remote_code,
        needs_head=True,
    )
    check_kinds(lm, parsed)
    file = results_file(lm.directory)
    if file is not None:
        read_evaluations(file)  # a damaged file shows before the work
    scoring = Options(wanted.batch_size, wanted.max_length, wanted.stride)
    results: list[Evaluation] = []
    with display:
        for task in parsed:
            if task.kind == "harness":
                scored = evaluate_harness(lm, task, scoring, limit=wanted.limit)
            else:
                report = partial(display.report, str(task))
                scored = [evaluate_items(lm, items[task], scoring, progress=report)]
            results += scored
            for evaluation in scored:  # each task at once: a later one may fail
                if file is not None and not _append(evaluation, file, wanted.output, display.say):
                    file = None
    write_output(wanted.output, lines_of(results))
    files = [Path(path) for path in (file, wanted.output) if path]
    return Evaluations(lm.place, lm.head, results, files)


def results_file(directory: Path | None) -> Path | None:
    """Where the results of a model belong: a run of ours, or an export of one; else nowhere."""
    if directory is None:
        return None
    ours = RunDirectory(directory)
    is_ours = ours.config.is_file() or (directory / DESCRIPTION).is_file()
    return ours.evaluations if is_ours else None


def _append(
    evaluation: Evaluation, file: Path, output: Path | None, say: Callable[[str], None]
) -> bool:
    """Add it to the results of its model; False where they go to `output` alone."""
    try:
        append_evaluation(file, evaluation)
    except (HeadlessError, PermissionError) as error:
        reason = f"{file} cannot be written" if isinstance(error, OSError) else str(error)
        if output is None:
            raise HeadlessError(f"{reason}; --output FILE writes elsewhere") from error
        say(f"{reason}; the results go to {output} alone")
        return False
    return True
