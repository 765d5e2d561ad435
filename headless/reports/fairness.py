"""What a reader must know before comparing: sentences on what differs besides the objective."""

from collections.abc import Callable, Sequence
from typing import Any

from headless.pages.numbers import compact
from headless.reports.reading import Group, Run

TOKEN_TOLERANCE = 0.005  # of the budget: the last step of a run may be a partial one


def unfair(groups: Sequence[Group]) -> list[str]:
    """Sentences on what makes these runs hard to compare; none when nothing does."""
    runs = [run for group in groups for run in group.runs]
    found = [*_unfinished(runs), *_budgets(runs)]
    if not same_tokenizer(groups):
        found.append(
            "The runs used different tokenizers: nats per token, perplexity and accuracy count "
            "other units for each of them. Compare bits per byte."
        )
    if _several(runs, lambda run: run.dataset):
        names = ", ".join(sorted({run.data for run in runs}))
        found.append(f"The runs were trained on different data ({names}).")
    for key, words in {
        "data.sequence_length": "sequence lengths: a longer context makes each token easier",
        "data.batch_size": "micro-batch sizes: a headless run has as many negatives as it has rows",
        "model.backbone": "backbones",
        "model.optimizer": "optimizer settings",
        "model.schedule": "learning-rate schedules",
        "trainer.precision": "numeric precisions: time and memory are not the objective's alone",
        "trainer.devices": "numbers of devices: time and memory are not the objective's alone",
    }.items():
        if _several(runs, _settings_below(key)):
            found.append(f"The runs have different {words} (`{key}`).")
    if _several(runs, _environment("cpu", "gpus", "cores")):
        found.append("The runs were made on different hardware: do not compare time and memory.")
    if _several(runs, _environment("commit", "headless")):
        found.append("The runs were made with different versions of the code.")
    return found + _seeds(groups)


def _unfinished(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs if not run.finished]
    if not names:
        return []
    are = "is" if len(names) == 1 else "are"
    return [f"Not finished: {', '.join(names)}. What is shown {are} the last logged values."]


def same_tokenizer(groups: Sequence[Group]) -> bool:
    """Whether all runs whose tokenizer is known used the same one."""
    known = {run.tokenizer for group in groups for run in group.runs} - {None}
    return len(known) < 2


def same_budget(groups: Sequence[Group]) -> bool:
    """Whether all runs saw the same number of tokens, but for a last partial step."""
    return not _budgets([run for group in groups for run in group.runs])


def _budgets(runs: Sequence[Run]) -> list[str]:
    tokens = [t for run in runs if (t := run.value("tokens"))]
    if not tokens or max(tokens) - min(tokens) <= TOKEN_TOLERANCE * max(tokens):
        return []
    return [
        f"The runs saw different numbers of tokens ({compact(min(tokens))} to "
        f"{compact(max(tokens))}): compare the curves at the same number, not the last values."
    ]


def _seeds(groups: Sequence[Group]) -> list[str]:
    found = []
    for group in groups:
        seeds = [run.seed for run in group.runs]
        if len(set(seeds)) < len(seeds):
            found.append(
                f"{group.label}: several runs share a seed; they are repetitions, and the interval "
                "over them is too narrow."
            )
    if len({frozenset(run.seed for run in group.runs) for group in groups}) > 1:
        found.append("The groups do not have the same seeds.")
    return found


def remarks(groups: Sequence[Group]) -> list[str]:
    """Sentences that are no fault of the comparison, but limit what it shows."""
    found = []
    if any(len(group.runs) == 1 for group in groups):
        found.append(
            "A single seed has no interval: differences of the size that another seed would make "
            "cannot be told from an effect."
        )
    if any(run.environment.get("dirty") for group in groups for run in group.runs):
        found.append("Some runs were made from a checkout with changes that were not committed.")
    return found


def _settings_below(key: str) -> Callable[[Run], Any]:
    return lambda run: {k: v for k, v in run.flat_config.items() if f"{k}.".startswith(f"{key}.")}


def _environment(*keys: str) -> Callable[[Run], Any]:
    return lambda run: [run.environment.get(key) for key in keys]


def _several(runs: Sequence[Run], read: Callable[[Run], Any]) -> bool:
    return len({repr(read(run)) for run in runs}) > 1
