"""The verb: perplexity and zero-shot tasks, with standard errors."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from headless.downstream.evaluation.catalogue import (
    Histories,
    evaluate_catalogue,
    read_histories,
)
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
from headless.downstream.options import Head, check_at_least_1, check_output_file, write_output
from headless.downstream.retrieval.indexes import load_faiss
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
    head: Head = "auto",
    batch_size: int = 32,
    limit: int | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    split: str | None = None,
    text_field: str = "text",
    index: Literal["exact", "ivf", "hnsw"] | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
    trust_remote_code: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
    *,
    progress: bool | Report = False,
) -> Evaluations:
    """Perplexity and zero-shot tasks of any model, with the definitions of lm-evaluation-harness.

    The results of a run, or of an export of one, are added to its evaluations.jsonl, from where
    `headless compare` takes them.

    Args:
        model: a run, a checkpoint, a Hugging Face directory or a hub name.
        tasks: KIND:SOURCE, several with commas between or as [a, b]. Kinds: text (a text, a
            directory, a prepared dataset), lambada, blimp, choice (.jsonl or .parquet records, or a
            datasets name), catalogue (item ids that headless prepare read: HR@k and NDCG@k of the
            last item of each sequence), harness (a task of lm-evaluation-harness by its name or
            YAML file).
        head: of a run; auto is the one under which it is a proper language model.
        batch_size: rows at a time.
        limit: only so many items of each task.
        max_length: tokens that the model reads at a time; as many as it can by default.
        stride: tokens that a window of a text adds to the one before; all of them by default.
        split: of a datasets name or a prepared dataset.
        text_field: the field of a text's records.
        index: of a catalogue: rank it through an index of faiss instead of scoring every item.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: of the weights; probabilities are computed in float32 at least.
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        output: also write the results to this file, one JSON object a line.
        overwrite: replace that file.
        progress: show it, or a function that gets (task, rows that are scored, rows in all).
    """
    check_output_file(output, overwrite)
    check_at_least_1(batch_size=batch_size, limit=limit)
    if index is not None:
        load_faiss()
    display = Display(progress)
    # What is wrong shows before a model is opened.
    items_of: dict[Task, Any] = {}
    for task in parse_tasks(tasks):
        if task.kind == "harness":
            items_of[task] = open_harness(task)
        elif task.kind == "catalogue":
            items_of[task] = read_histories(task, limit=limit, split=split)
        else:
            items_of[task] = read_items(task, limit=limit, split=split, text_field=text_field)
            if line := describe_unread(task, text_field):
                display.say(line)
    lm = load(
        model,
        head=head,
        device=device,
        dtype=getattr(torch, dtype),
        trust_remote_code=trust_remote_code,
        needs_head=True,
    )
    check_kinds(lm, list(items_of))
    file = results_file(lm.directory)
    if file is not None:
        read_evaluations(file)  # a damaged file shows before the work
    scoring: Any = {"batch_size": batch_size, "max_length": max_length}
    results: list[Evaluation] = []
    with display:
        for task, items in items_of.items():
            report = partial(display.report, str(task))
            if isinstance(items, Histories):
                scored = [evaluate_catalogue(lm, items, **scoring, index=index, progress=report)]
            elif isinstance(items, Items):
                scored = [evaluate_items(lm, items, **scoring, stride=stride, progress=report)]
            else:
                scored = evaluate_harness(lm, task, items, **scoring, limit=limit)
            results += scored
            if file is not None and (reason := _append(file, scored)):  # a later task may fail
                if output is None:
                    raise HeadlessError(f"{reason}; --output FILE writes elsewhere")
                display.say(f"{reason}; the results go to {output} alone")
                file = None
    write_output(output, as_lines(results))
    files = [Path(path) for path in (file, output) if path]
    return Evaluations(lm.place, lm.head, results, files)


def _append(file: Path, evaluations: list[Evaluation]) -> str | None:
    """Add results to a file; or why it cannot be."""
    try:
        for evaluation in evaluations:
            append_evaluation(file, evaluation)
    except HeadlessError as error:
        return str(error)
    except PermissionError:
        return f"{file} cannot be written"
    return None


def results_file(directory: Path | None) -> Path | None:
    """evaluations.jsonl of a run or of an export of one; None for what is neither."""
    if directory is None:
        return None
    run = RunDirectory(directory)
    is_headless = run.config.is_file() or (directory / DESCRIPTION).is_file()
    return run.evaluations if is_headless else None
