"""Tasks of lm-evaluation-harness, which the extra `eval` installs, on any model that `load` opens.

https://github.com/EleutherAI/lm-evaluation-harness. It reads its data from the Hugging Face hub, or
from the files that a local task description names.
"""

import contextlib
import logging
import sys
import time
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headless.downstream.evaluation.kinds import check_kinds, facts
from headless.downstream.evaluation.tasks import Task, digest
from headless.downstream.language_model import LanguageModel
from headless.downstream.tokenizers import longest_input
from headless.errors import HeadlessError, one_line
from headless.runs.evaluations import Evaluation

BOOTSTRAPS = 1000  # resamples for the standard errors that have no closed form
INSTALL = "pip install 'headless-lm[eval]'"
# The harness's names of metrics that our tasks have, too.
NAMES = {"acc": "accuracy", "acc_norm": "accuracy_norm", "acc_bytes": "accuracy_bytes"}


def open_harness(task: Task) -> Any:
    """The harness's list of tasks with this one in it; refuses one that is not, in seconds."""
    local = Path(task.source).suffix in (".yaml", ".yml")
    if local and not Path(task.source).is_file():
        raise HeadlessError(f"there is no {task.source}")
    try:
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=not local)
    except ImportError as error:
        raise HeadlessError(
            f"{task} needs lm-evaluation-harness, which is not installed ({error}): {INSTALL}"
        ) from error
    if not local and task.source not in manager.all_tasks:
        near = get_close_matches(task.source, manager.all_tasks, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "lm-eval ls tasks lists them"
        raise HeadlessError(f"lm-evaluation-harness has no task {task.source!r}; {hint}")
    return manager


def evaluate_harness(
    lm: LanguageModel,
    task: Task,
    manager: Any,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    limit: int | None = None,
) -> list[Evaluation]:
    """Run a task, or a group of tasks, of lm-evaluation-harness on a causal model.

    The windows of texts are the harness's own. `manager` is of `open_harness`.
    """
    check_kinds(lm, [task])
    begin = time.perf_counter()
    max_length = longest_input(lm.model, lm.tokenizer, max_length)
    report = _run(lm, task, manager, batch_size, max_length, limit)
    common = facts(lm, begin, lm_eval=report["lm_eval"])  # the seconds are those of the group
    evaluations = []
    for name, samples in report["samples"].items():
        metrics, errors = _numbers(report["results"][name])
        evaluations.append(
            Evaluation(
                task=str(task),
                kind="harness",
                source=name,
                data_sha256=digest([name, *(sample["doc_hash"] for sample in samples)]),
                metrics=dict(metrics),
                errors=errors,
                items=len({sample["doc_id"] for sample in samples}),
                settings={
                    "max_length": max_length,
                    "num_fewshot": report["n-shot"].get(name),
                    "task_version": report["versions"].get(name),
                },
                **common,
            )
        )
    return evaluations


def _run(
    lm: LanguageModel, task: Task, manager: Any, batch_size: int, max_length: int, limit: int | None
) -> dict[str, Any]:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its hints are about our own doing
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import lm_eval
            from lm_eval.models.huggingface import HFLM

            model = HFLM(
                pretrained=lm.model,
                tokenizer=lm.tokenizer,
                batch_size=batch_size,
                max_length=max_length,
            )
            report: Any = lm_eval.simple_evaluate(
                model,
                tasks=[task.source],
                limit=limit,
                bootstrap_iters=BOOTSTRAPS,
                task_manager=manager,
            )
    except Exception as error:  # noqa: BLE001 - it reaches for the network and for foreign code
        reason = one_line(error, 300) or type(error).__name__
        raise HeadlessError(
            f"lm-evaluation-harness could not run {task.source!r} (is its data within reach?): "
            f"{reason}"
        ) from error
    return report | {"lm_eval": lm_eval.__version__}


def _numbers(values: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics and standard errors from "acc,none" and "acc_stderr,none"."""
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or isinstance(value, str | bool) or value is None:
            continue  # the alias, and errors that are "N/A"
        into = errors if metric.endswith("_stderr") else metrics
        metric = metric.removesuffix("_stderr")
        metric = NAMES.get(metric, metric)
        into[metric if filtered == "none" else f"{metric} ({filtered})"] = float(value)
    return metrics, errors
