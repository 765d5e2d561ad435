"""One model, one task, one result."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import torch
import transformers

import headless
from headless.downstream.evaluation.kinds import OUTCOMES
from headless.downstream.evaluation.likelihood import Progress
from headless.downstream.evaluation.scorer import Options, Scorer
from headless.downstream.evaluation.tasks import Items, Task
from headless.downstream.language_model import LanguageModel
from headless.errors import HeadlessError
from headless.runs.evaluations import Evaluation

MASKED_KINDS = ("blimp",)


def evaluate(
    loaded: LanguageModel,
    items: Items,
    options: Options | None = None,
    *,
    step: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score a model on the items of a task.

    Args:
        loaded: the model.
        items: see `read_items`.
        options: how to score.
        step: optimizer steps of the checkpoint, to be noted down.
        progress: is told of scored rows.

    Raises:
        HeadlessError: a masked model and a kind that needs a causal one, an option out of range,
            no item that fits the model, or scores that are not finite.
    """
    check_kinds(loaded, [items.task])
    begin = time.perf_counter()
    scorer = Scorer(loaded, options or Options(), progress)
    outcome = OUTCOMES[items.task.kind](scorer, items.items)
    metrics = outcome.metrics
    return Evaluation(
        task=str(items.task),
        kind=items.task.kind,
        source=items.task.name,
        data_sha256=items.sha256,
        model=loaded.name,
        head=loaded.head,
        step=step,
        metrics={name: m.value for name, m in metrics.items()},
        errors={name: m.error for name, m in metrics.items() if m.error is not None},
        items=outcome.items,
        skipped=items.skipped + outcome.skipped,
        truncated=outcome.truncated,
        subsets=outcome.subsets,
        settings={"max_length": scorer.max_length, **outcome.settings},
        seconds=round(time.perf_counter() - begin, 3),
        versions=versions(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def check_kinds(loaded: LanguageModel, tasks: Sequence[Task]) -> None:
    """Whether a model can do some tasks.

    Raises:
        HeadlessError: a masked model and a kind that needs a causal one.
    """
    wrong = [task.kind for task in tasks if task.kind not in MASKED_KINDS]
    if loaded.task == "masked" and wrong:
        raise HeadlessError(
            f"{loaded.place} is a masked language model, which gives no text a probability from "
            f"left to right: it can do {', '.join(MASKED_KINDS)}, not {wrong[0]}"
        )


def versions() -> dict[str, str]:
    """Of what decides a score."""
    return {
        "headless": headless.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
