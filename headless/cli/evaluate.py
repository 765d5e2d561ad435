"""`headless evaluate`: perplexity and zero-shot tasks, with standard errors."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headless.cli.parsing import run
from headless.data.stream import caution
from headless.errors import HeadlessError
from headless.files import write_text
from headless.runs.directory import RunDirectory
from headless.runs.evaluations import Evaluation, append_evaluation, lines_of, read_evaluations

EXPORT = "headless.json"  # what `headless export` leaves in a directory of ours
PLACES = {"accuracy": 4, "nll": 4, "bits_per_byte": 4}  # decimals; others: significant digits
SUBSETS = 20  # lines of a table; the file has all


def evaluate(
    model: str,
    tasks: str | list[str],
    head: Literal["auto", "calibrated", "tied", "trained"] = "auto",
    batch_size: int = 32,
    limit: int | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    split: str | None = None,
    text_field: str = "text",
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
    trust_remote_code: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Perplexity and zero-shot tasks of any model, with the definitions of lm-evaluation-harness.

    The results of a run go to its evaluations.jsonl, from where `headless compare` takes them.

    Args:
        model: a run directory, a checkpoint in one, a Hugging Face directory or a hub name.
        tasks: KIND:SOURCE, several with commas between or as [a, b]. Kinds: text (a text, a
            directory, a prepared dataset), lambada, blimp, choice (.jsonl or .parquet records, or a
            datasets name), harness (a task of lm-evaluation-harness by its name or YAML file).
        head: of a run; auto is the one under which it is a proper language model.
        batch_size: rows at a time.
        limit: only so many items of each task.
        max_length: tokens that the model reads at a time; as many as it can by default.
        stride: tokens that a window of a text adds to the one before; max_length by default, so
            that windows do not overlap.
        split: of a datasets name or a prepared dataset.
        text_field: the field of a text's records.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: of the weights; probabilities are computed in float32 at least.
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        output: also write the results to this file, one JSON object a line.
        overwrite: replace that file.
    """
    # Everything that can be wrong with the words, before anything is opened.
    from headless.downstream.evaluation.harness import check_harness
    from headless.downstream.evaluation.tasks import left_out, parse_tasks, read_items

    parsed = parse_tasks(tasks)
    _check_output(output, overwrite)
    if batch_size < 1:
        raise HeadlessError(f"batch_size must be at least 1, got {batch_size}")
    if limit is not None and limit < 1:
        raise HeadlessError(f"limit must be at least 1, got {limit}")
    items = {}
    for task in parsed:
        if task.kind == "harness":
            check_harness(task)
        else:
            items[task] = read_items(task, limit=limit, split=split, text_field=text_field)
            if said := left_out(task, text_field):
                print(f"headless: {said}", file=sys.stderr)

    import torch

    from headless.downstream.evaluation.harness import evaluate_harness
    from headless.downstream.evaluation.run import check_kinds
    from headless.downstream.evaluation.run import evaluate as evaluate_items
    from headless.downstream.evaluation.scorer import Options
    from headless.downstream.loading import load

    loaded = load(
        model,
        head=head,
        device=device,
        dtype=getattr(torch, dtype),
        trust_remote_code=trust_remote_code,
        needs_head=True,
    )
    check_kinds(loaded, parsed)
    step = checkpoint_step(model)
    place = results_file(loaded.directory)
    if place is not None:
        read_evaluations(place)  # a damaged file shows before the work
    options = Options(batch_size, max_length, stride)
    done: list[Evaluation] = []
    for task in parsed:
        if task.kind == "harness":
            found = evaluate_harness(loaded, task, options, limit=limit, step=step)
        else:
            with Display(str(task)) as display:
                found = [
                    evaluate_items(loaded, items[task], options, step=step, progress=display.report)
                ]
        done += found
        for evaluation in found:  # each task at once: a later one may fail
            place = _save(evaluation, place, output)
    show(done, f"{loaded.place}, {loaded.head} head")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, lines_of(done))
    for path in filter(None, (place, output)):
        print(f"results: {path}")


class Display:
    """Progress on standard error: a bar in a terminal, a line for each task in a log."""

    def __init__(self, name: str) -> None:
        console = Console(stderr=True)
        self.live = console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self.task = self.bars.add_task(escape(name), total=None)
        if not self.live:
            print(name, file=sys.stderr, flush=True)

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def report(self, done: int, total: int) -> None:
        """Rows that are scored, and rows in all."""
        self.bars.update(self.task, completed=done, total=total)


def results_file(directory: Path | None) -> Path | None:
    """Where the results of a model belong: a run of ours, or an export of one; else nowhere."""
    if directory is None:
        return None
    ours = RunDirectory(directory)
    return ours.evaluations if ours.config.is_file() or (directory / EXPORT).is_file() else None


def checkpoint_step(place: str) -> int | None:
    """Optimizer steps of a run's checkpoint; None for what is no run."""
    import torch

    from headless.training.loading import find_checkpoint, is_run

    if not is_run(place):
        return None
    content = torch.load(find_checkpoint(place), map_location="cpu", weights_only=True, mmap=True)
    return int(content["global_step"])


def show(evaluations: Sequence[Evaluation], title: str) -> None:
    """Print the numbers, each with its standard error over the items."""
    table = Table(title=escape(title), title_justify="left", box=None, header_style="bold")
    table.add_column("task", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for name in ("value", "± s.e.", "items"):
        table.add_column(name, justify="right", no_wrap=True)
    for evaluation in evaluations:
        task, items = f"{evaluation.kind}:{escape(evaluation.source)}", f"{evaluation.items:,}"
        for metric, value in evaluation.metrics.items():
            error = evaluation.errors.get(metric)
            table.add_row(task, metric, number(metric, value), number(metric, error), items)
            task, items = "", ""
        for name, part in list(evaluation.subsets.items())[:SUBSETS]:
            value, error = part.get("accuracy"), part.get("accuracy_error")
            table.add_row(
                f"  {escape(name)}",
                "accuracy",
                number("accuracy", value),
                number("accuracy", error),
                f"{part['items']:,}",
                style="dim",
            )
        if (more := len(evaluation.subsets) - SUBSETS) > 0:
            table.add_row(f"  and {more} more subsets", *[""] * 4, style="dim")
        for number_of, words in (
            (evaluation.skipped, "skipped"),
            (evaluation.truncated, "cut to fit"),
        ):
            if number_of:
                table.add_row(f"  {number_of:,} {words}", *[""] * 4, style="dim")
    Console().print(table)
    for evaluation in evaluations:
        if said := caution(evaluation.settings.get("inexact_share")):
            print(f"note: {evaluation.kind}:{evaluation.source}: {said}")


def number(metric: str, value: Any) -> str:
    """A score with as many digits as its metric deserves."""
    if value is None:
        return "–"
    places = PLACES.get("accuracy" if metric.startswith("accuracy") else metric)
    return f"{value:,.{places}f}" if places else f"{value:,.5g}"


def _check_output(output: Path | None, overwrite: bool) -> None:
    if output is None:
        return
    if output.is_dir():
        raise HeadlessError(f"{output} is a directory: --output names a file")
    if output.exists() and not overwrite:
        raise HeadlessError(
            f"{output} exists: replace it with --overwrite true, or give another --output"
        )


def _save(evaluation: Evaluation, place: Path | None, output: Path | None) -> Path | None:
    """Add it to the results of its model; returns where the next one goes.

    What cannot be written there goes to `output` alone.
    """
    if place is None:
        return None
    try:
        append_evaluation(place, evaluation)
    except (HeadlessError, PermissionError) as error:
        reason = f"{place} cannot be written" if isinstance(error, OSError) else str(error)
        if output is None:
            raise HeadlessError(f"{reason}; --output FILE writes elsewhere") from error
        print(f"headless: {reason}; the results go to {output} alone", file=sys.stderr)
        return None
    return place


def main(arguments: list[str]) -> None:
    """The command."""
    run(evaluate, arguments, "evaluate")
