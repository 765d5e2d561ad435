"""Tasks of EleutherAI's lm-evaluation-harness, on any model that we can open.

https://github.com/EleutherAI/lm-evaluation-harness, installed by the extra `eval`. It reads its
data from the Hugging Face hub, or from the files that a local task description names.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headless.downstream.evaluation.encoding import longest_input
from headless.downstream.evaluation.run import check_kinds, versions
from headless.downstream.evaluation.scorer import Options
from headless.downstream.evaluation.tasks import Task, digest
from headless.downstream.language_model import LanguageModel
from headless.errors import HeadlessError
from headless.runs.evaluations import Evaluation

BOOTSTRAPS = 1000  # resamples for the standard errors that have no closed form
INSTALL = "pip install 'headless-lm[eval]'"
# Their names of what our own tasks measure, too.
NAMES = {"acc": "accuracy", "acc_norm": "accuracy_norm", "acc_bytes": "accuracy_bytes"}


def check_harness(task: Task) -> None:
    """Whether a task can be found, before a model is opened.

    Raises:
        HeadlessError: the harness is not installed, or it has no such task.
    """
    if find_spec("lm_eval") is None:
        raise HeadlessError(
            f"{task} needs lm-evaluation-harness, which is not installed: {INSTALL}"
        )
    if Path(task.source).suffix in (".yaml", ".yml"):
        if not Path(task.source).is_file():
            raise HeadlessError(f"there is no {task.source}")
        return
    try:
        known = _manager(task).all_tasks
    except ImportError as error:
        raise HeadlessError(f"lm-evaluation-harness is incomplete ({error}): {INSTALL}") from error
    if task.source not in known:
        near = get_close_matches(task.source, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "lm-eval ls tasks lists them"
        raise HeadlessError(f"lm-evaluation-harness has no task {task.source!r}; {hint}")


def evaluate_harness(
    loaded: LanguageModel,
    task: Task,
    options: Options | None = None,
    *,
    limit: int | None = None,
    step: int | None = None,
) -> list[Evaluation]:
    """Run a task, or a group of tasks, of the harness.

    Args:
        loaded: a causal model.
        task: its name there, or the path of a task's YAML file.
        options: rows at a time and tokens of context; windows are the harness's own.
        limit: only so many items of each task.
        step: optimizer steps of the checkpoint, to be noted down.

    Returns:
        A result for each task of a group; one for a task.

    Raises:
        HeadlessError: the harness is not installed, a masked model, or a task that cannot be run:
            most often its data cannot be reached.
    """
    check_harness(task)
    check_kinds(loaded, [task])
    options = options or Options()
    max_length = longest_input(loaded.model, loaded.tokenizer, options.max_length)
    begin = time.perf_counter()
    try:
        with _quiet():
            from lm_eval import simple_evaluate
            from lm_eval.models.huggingface import HFLM

            model = HFLM(
                pretrained=loaded.model,
                tokenizer=loaded.tokenizer,
                batch_size=options.batch_size,
                max_length=max_length,
            )
            found: Any = simple_evaluate(
                model,
                tasks=[task.source],
                limit=limit,
                bootstrap_iters=BOOTSTRAPS,
                task_manager=_manager(task),
            )
    except ImportError as error:
        raise HeadlessError(f"lm-evaluation-harness is incomplete ({error}): {INSTALL}") from error
    except Exception as error:  # noqa: BLE001 - it reaches for the network and for foreign code
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise HeadlessError(
            f"lm-evaluation-harness could not run {task.source!r} (is its data within reach?): "
            f"{reason}"
        ) from error
    seconds = round(time.perf_counter() - begin, 3)
    results = []
    for name, samples in found["samples"].items():
        metrics, errors = _numbers(found["results"][name])
        results.append(
            Evaluation(
                task=str(task),
                kind="harness",
                source=name,
                data_sha256=digest([name, *(sample["doc_hash"] for sample in samples)]),
                model=loaded.name,
                head=loaded.head,
                step=step,
                metrics=dict(metrics),
                errors=errors,
                items=len({sample["doc_id"] for sample in samples}),
                settings={
                    "max_length": max_length,
                    "num_fewshot": found["n-shot"].get(name),
                    "task_version": found["versions"].get(name),
                },
                seconds=seconds,  # of all tasks of a group together
                versions={**versions(), "lm_eval": _version()},
                time=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
    return results


def _numbers(values: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics and standard errors; theirs are called "acc,none" and "acc_stderr,none"."""
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


def _manager(task: Task) -> Any:
    from lm_eval.tasks import TaskManager

    local = Path(task.source).suffix in (".yaml", ".yml")
    return TaskManager(include_defaults=not local)


def _version() -> str:
    try:
        return version("lm-eval")
    except PackageNotFoundError:  # a copy beside the path
        return "unknown"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What it prints goes to standard error, its hints about our own doing nowhere."""
    import logging

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
