"""Tasks of EleutherAI's lm-evaluation-harness, on any model that we can open.

https://github.com/EleutherAI/lm-evaluation-harness, installed by the extra `eval`. It reads its
data from the Hugging Face hub, or from the files that a local task description names.
"""

import contextlib
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from headless.downstream.evaluation.encoding import longest_input
from headless.downstream.evaluation.kinds import Options
from headless.downstream.evaluation.tasks import Task
from headless.downstream.language_model import LanguageModel
from headless.errors import HeadlessError

BOOTSTRAPS = 1000  # resamples for the standard errors that have no closed form
INSTALL = "pip install 'headless-lm[eval]'"
# Their names of what our own tasks measure, too.
NAMES = {"acc": "accuracy", "acc_norm": "accuracy_norm", "acc_bytes": "accuracy_bytes"}


def check_harness(task: Task) -> None:
    """Refuse a task that cannot be found, before a model is opened."""
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


class HarnessResult(NamedTuple):
    """What one task of a group gives."""

    name: str
    hashes: list[str]  # of its items
    metrics: dict[str, float]
    errors: dict[str, float]
    items: int
    settings: dict[str, Any]
    version: str  # of the harness


def run_harness(
    lm: LanguageModel, task: Task, options: Options, limit: int | None
) -> list[HarnessResult]:
    """A result for each task of a group; one for a task."""
    max_length = longest_input(lm.model, lm.tokenizer, options.max_length)
    try:
        with _quiet():
            from lm_eval import simple_evaluate
            from lm_eval.models.huggingface import HFLM

            model = HFLM(
                pretrained=lm.model,
                tokenizer=lm.tokenizer,
                batch_size=options.batch_size,
                max_length=max_length,
            )
            ran: Any = simple_evaluate(
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
    results = []
    for name, samples in ran["samples"].items():
        metrics, errors = _numbers(ran["results"][name])
        settings = {
            "max_length": max_length,
            "num_fewshot": ran["n-shot"].get(name),
            "task_version": ran["versions"].get(name),
        }
        hashes = [sample["doc_hash"] for sample in samples]
        items = len({sample["doc_id"] for sample in samples})
        results.append(HarnessResult(name, hashes, metrics, errors, items, settings, _version()))
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
