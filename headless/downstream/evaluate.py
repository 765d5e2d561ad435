"""The verb: perplexity and zero-shot tasks, with standard errors."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

import headless
from headless.downstream.evaluation.harness import check_harness, run_harness
from headless.downstream.evaluation.kinds import OUTCOMES, Options, Scorer
from headless.downstream.evaluation.tasks import (
    MASKED_KINDS,
    Items,
    Task,
    digest,
    left_out,
    parse_tasks,
    read_items,
)
from headless.downstream.export import DESCRIPTION
from headless.downstream.language_model import LanguageModel
from headless.downstream.loading import load
from headless.downstream.options import EvaluateOptions
from headless.errors import HeadlessError
from headless.files import write_text
from headless.progress import Report, no_report
from headless.runs.directory import RunDirectory
from headless.runs.evaluations import Evaluation, append_evaluation, lines_of, read_evaluations

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Evaluations:
    """What `evaluate` returns.

    Args:
        model: what was evaluated, as it was named.
        head: under which LM head.
        results: one a task, in their order.
        files: where they were written.
    """

    model: str
    head: str
    results: list[Evaluation]
    files: list[Path]

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
        return self.frame()._repr_html_()  # type: ignore[operator]


def evaluate(
    model: str | Path | LanguageModel,
    tasks: str | list[str],
    *,
    progress: Report = no_report,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Evaluations:
    """Perplexity and zero-shot tasks of any model, with the definitions of lm-evaluation-harness.

    The results of a run, or of an export of one, are added to its evaluations.jsonl.

    Args:
        model: as of `load`, or one that is open.
        tasks: KIND:SOURCE, several with commas between or as a list: see `EvaluateOptions`.
        progress: gets the task, how many of its rows are scored and how many there are.
        say: gets what a user should know and is no error, a line at a time.
        **options: see `EvaluateOptions`.
    """
    place = model.place if isinstance(model, LanguageModel) else str(model)
    asked = EvaluateOptions(place, tasks, **options)
    parsed = parse_tasks(asked.tasks)
    items: dict[Task, Items] = {}
    for task in parsed:  # all that can be wrong with the words, before a model is opened
        if task.kind == "harness":
            check_harness(task)
            continue
        items[task] = read_items(
            task, limit=asked.limit, split=asked.split, text_field=asked.text_field
        )
        if line := left_out(task, asked.text_field):
            say(line)
    lm = load(
        model,
        head=asked.head,
        device=asked.device,
        dtype=getattr(torch, asked.dtype),
        trust_remote_code=asked.trust_remote_code,
        needs_head=True,
    )
    check_kinds(lm, parsed)
    file = results_file(lm.directory)
    if file is not None:
        read_evaluations(file)  # a damaged file shows before the work
    scoring = Options(asked.batch_size, asked.max_length, asked.stride)
    results: list[Evaluation] = []
    for task in parsed:
        if task.kind == "harness":
            scored = evaluate_harness(lm, task, scoring, limit=asked.limit)
        else:
            report = partial(progress, str(task))
            scored = [evaluate_items(lm, items[task], scoring, progress=report)]
        results += scored
        for evaluation in scored:  # each task at once: a later one may fail
            if file is not None and not _append(evaluation, file, asked.output, say):
                file = None
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(asked.output, lines_of(results))
    return Evaluations(lm.place, lm.head, results, [p for p in (file, asked.output) if p])


def evaluate_items(
    lm: LanguageModel,
    items: Items,
    options: Options | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score a model on the items of a task: see `read_items`."""
    check_kinds(lm, [items.task])
    begin = time.perf_counter()
    scorer = Scorer(lm, options or Options(), progress)
    outcome = OUTCOMES[items.task.kind](scorer, items.items)
    return Evaluation(
        task=str(items.task),
        kind=items.task.kind,
        source=items.task.name,
        data_sha256=items.sha256,
        metrics={name: m.value for name, m in outcome.metrics.items()},
        errors={name: m.error for name, m in outcome.metrics.items() if m.error is not None},
        items=outcome.items,
        skipped=items.skipped + outcome.skipped,
        truncated=outcome.truncated,
        subsets=outcome.subsets,
        settings={"max_length": scorer.max_length, **outcome.settings},
        **_facts(lm, begin),
    )


def evaluate_harness(
    lm: LanguageModel, task: Task, options: Options | None = None, *, limit: int | None = None
) -> list[Evaluation]:
    """Run a task, or a group of tasks, of lm-evaluation-harness: a result for each task.

    Args:
        lm: a causal model.
        task: its name there, or the path of a task's YAML file.
        options: rows at a time and tokens of context; windows are the harness's own.
        limit: only so many items of each task.
    """
    check_harness(task)
    check_kinds(lm, [task])
    begin = time.perf_counter()
    ran = run_harness(lm, task, options or Options(), limit)
    facts = _facts(lm, begin)  # the seconds are those of all tasks of a group together
    facts["versions"] |= {"lm_eval": ran[0].version}
    return [
        Evaluation(
            task=str(task),
            kind="harness",
            source=one.name,
            data_sha256=digest([one.name, *one.hashes]),
            metrics=dict(one.metrics),
            errors=one.errors,
            items=one.items,
            settings=one.settings,
            **facts,
        )
        for one in ran
    ]


def _facts(lm: LanguageModel, begin: float) -> dict[str, Any]:
    return {
        "model": lm.name,
        "head": lm.head,
        "step": lm.step,
        "seconds": round(time.perf_counter() - begin, 3),
        "versions": {
            "headless": headless.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_kinds(lm: LanguageModel, tasks: Sequence[Task]) -> None:
    """Refuse tasks that need a causal model where the model is a masked one."""
    wrong = [task.kind for task in tasks if task.kind not in MASKED_KINDS]
    if lm.task == "masked" and wrong:
        raise HeadlessError(
            f"{lm.place} is a masked language model, which gives no text a probability from "
            f"left to right: it can do {', '.join(MASKED_KINDS)}, not {wrong[0]}"
        )


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
