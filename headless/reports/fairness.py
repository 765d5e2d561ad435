"""What a reader must know before comparing: sentences on what differs besides the objective."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headless.files import is_moved_aside
from headless.pages.numbers import MISSING, compact
from headless.reports.groups import Group, differ, runs_of
from headless.reports.settings import (
    OBJECTIVE,
    STEP_FACTORS,
    counting,
    differing,
    sequences_per_step,
)
from headless.runs.resume import is_among
from headless.runs.run import Run

TOKEN_TOLERANCE = 0.005  # of the budget: the last step of a run may be a partial one
BEGINNINGS = ("model.init_head", "model.freeze_backbone")
MAX_TEXT = 40  # letters of a value in a sentence
NOT_ALONE = "time and memory are not the objective's alone"
# What a difference means, where that can be said; the most special name of a setting first.
MEANINGS = {
    "data.sequence_length": "sequence lengths: a longer context makes each token easier",
    "data.batch_size": "micro-batch sizes: a headless run has as many negatives as it has rows",
    "data.val_batch_size": "parts of the validation text that were scored",
    "trainer.limit_val_batches": "parts of the validation text that were scored",
    "model.backbone": "backbones",
    "model.optimizer": "optimizer settings",
    "model.schedule": "learning-rate schedules",
    "model.compile": f"compilation: {NOT_ALONE}",
    "trainer.precision": f"numeric precisions: {NOT_ALONE}",
    "trainer.devices": f"numbers of devices: {NOT_ALONE}",
    "trainer.num_nodes": f"numbers of nodes: {NOT_ALONE}",
    "trainer": "settings of the trainer",
    "data": "settings of the data",
    "model": "settings of the model besides the objective",
}


def unfair(groups: Sequence[Group]) -> list[str]:
    """Sentences on what makes these runs hard to compare; none when nothing does.

    Where all began from trained models, what they began from is compared, and may differ.
    """
    runs = runs_of(groups)
    tuned = all(run.init_from for run in runs)
    data = ", ".join(sorted({run.data for run in runs}))
    began = ", ".join(sorted({run.begins_from or "random weights" for run in runs}))
    across = "Compare bits per byte."
    if inexact(groups):
        across = (
            "Bits per byte does not help here, since a tokenizer does not give the text back: "
            "these scores cannot be compared."
        )
    of_texts = {
        "The runs used different tokenizers: nats per token, perplexity and accuracy count other "
        f"units for each of them. {across}": not same_tokenizer(groups),
        f"The runs were trained on different data ({data}).": not same_data(groups),
        f"The runs began from different models ({began}).": not tuned
        and differ(groups, lambda run: run.begins_from),
    }
    of_costs = {
        "The runs were made on different hardware: do not compare time and memory.": (
            not same_hardware(groups)
        ),
        "The time of some runs is without compilation and the first steps, that of others (an "
        "earlier version) with them: do not compare it.": not same_clock(groups),
        "The memory of some runs is of training alone, that of others (an earlier version) of "
        "training and validation: do not compare it.": (
            len({run.memory_scope for run in runs if run.summary}) > 1
        ),
        "The runs were made with different versions of the code.": differ(
            groups, _environment("commit", "headless")
        ),
    }
    return [
        *_that_hold(_states(runs)),
        *_budgets(runs),
        *_that_hold(of_texts),
        *_settings(runs, (OBJECTIVE, *(BEGINNINGS if tuned else ()))),
        *_that_hold(of_costs),
        *_seeds(groups),
    ]


def _that_hold(sentences: Mapping[str, Any]) -> list[str]:
    return [sentence for sentence, holds in sentences.items() if holds]


def _states(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What is special about single runs: not finished, moved aside, changed on their way."""
    unfinished = [run.name for run in runs if not run.finished]
    are = "is" if len(unfinished) == 1 else "are"
    aside = [run.name for run in runs if is_moved_aside(run.directory.path)]
    kept = {run.name: run.directory.earlier_configs() for run in runs}
    changed = [
        f"{name} ({', '.join(p.name for p in paths)})" for name, paths in kept.items() if paths
    ]
    return {
        f"Not finished: {', '.join(unfinished)}. What is shown {are} the last logged "
        "values.": unfinished,
        "Moved aside by a later run of the same name, and here since it was named: "
        f"{', '.join(aside)}.": aside,
        f"Began with other settings than those that are compared: {'; '.join(changed)}.": changed,
    }


def same_tokenizer(groups: Iterable[Group]) -> bool:
    """Whether all runs whose tokenizer is known used the same one."""
    return len({run.summary.get("tokenizer_sha256") for run in runs_of(groups)} - {None}) < 2


def same_unit(key: str, groups: Sequence[Group]) -> bool:
    """Whether a score counts the same for all: bits per byte also does between tokenizers, where
    all of these give the text back."""
    return same_tokenizer(groups) or (key.endswith("bits_per_byte") and not inexact(groups))


def same_data(groups: Sequence[Group]) -> bool:
    """Whether all runs had the same data: by its digest, and by its name where a run has none."""
    digests = {run.summary.get("dataset_sha256") or None for run in runs_of(groups)}
    if None in digests and differ(groups, lambda run: run.data):
        return False
    return len(digests - {None}) < 2


def same_clock(groups: Iterable[Group]) -> bool:
    """Whether the seconds of all runs are of the same steps: earlier versions counted all."""
    return len({"startup_seconds" in run.summary for run in runs_of(groups) if run.summary}) < 2


def same_hardware(groups: Iterable[Group]) -> bool:
    """Whether all runs were made on machines of one kind."""
    return not differ(groups, _environment("cpu", "gpus", "cores"))


def same_budget(groups: Iterable[Group]) -> bool:
    """Whether all runs saw the same number of tokens, but for a last partial step."""
    return not _budgets(runs_of(groups))


def inexact(groups: Sequence[Group]) -> list[str]:
    """What bits per byte does not say where a tokenizer does not give the text back."""
    return about_lost_text({group.label: group.inexact_share for group in groups})


def about_lost_text(shares: Mapping[str, float]) -> list[str]:
    """See `inexact`, of the share of a text by the label of whose tokenizer changes it."""
    lossy = ", ".join(f"{k}: {compact(100 * v, 2)} %" for k, v in shares.items() if v > 0)
    if not lossy:
        return []
    return [
        "* Bits per byte counts the bytes of the text as it was, but the tokenizer does not give "
        f"all of it back. Share of the bytes in documents that it changes: {lossy}. What it drops "
        "is not predicted, so this is no fair number between tokenizers."
    ]


def _budgets(runs: Sequence[Run]) -> list[str]:
    tokens = [t for run in runs if (t := run.value("tokens"))]
    if not tokens or max(tokens) - min(tokens) <= TOKEN_TOLERANCE * max(tokens):
        return []
    return [
        f"The runs saw different numbers of tokens ({compact(min(tokens))} to "
        f"{compact(max(tokens))}): compare the curves at the same number, not the last values."
    ]


def _seeds(groups: Sequence[Group]) -> list[str]:
    seeds = {group.label: [run.seed for run in group.runs] for group in groups}
    sentences = [
        f"{label}: several runs share a seed; they are repetitions, and the interval over them is "
        "too narrow."
        for label, own in seeds.items()
        if len(set(own)) < len(own)
    ]
    if len(set(map(frozenset, seeds.values()))) > 1:
        sentences.append("The groups do not have the same seeds.")
    return sentences


def remarks(groups: Sequence[Group]) -> list[str]:
    """Sentences that are no fault of the comparison, but limit what it shows."""
    return _that_hold(
        {
            "A single seed has no interval: differences of the size that another seed would make "
            "cannot be told from an effect.": any(len(group.runs) == 1 for group in groups),
            "Some runs were made from a checkout with changes that were not committed.": any(
                run.environment.get("dirty") for run in runs_of(groups)
            ),
        }
    )


def _settings(runs: Sequence[Run], compared: tuple[str, ...]) -> list[str]:
    """A sentence for each kind of setting that differs besides what is compared."""
    differences = differing([counting(run.settings) for run in runs])
    sentences = []
    steps = {sequences_per_step(run.settings) for run in runs} - {None}
    if len(steps) > 1:
        factors = ", ".join(f"`{key}`" for key in STEP_FACTORS if key in differences)
        sentences.append(
            f"The runs have different batches of an optimizer step ({_listed(sorted(steps))} "
            f"sequences over all devices; {factors})."
        )
    by_meaning: dict[str, list[str]] = {}
    for key, texts in differences.items():
        if not is_among(key, compared):
            names = (words for name, words in MEANINGS.items() if is_among(key, (name,)))
            values = _listed(dict.fromkeys(texts))
            by_meaning.setdefault(next(names, "settings"), []).append(f"`{key}`: {values}")
    return sentences + [
        f"The runs have different {meaning} ({'; '.join(keys)})."
        for meaning, keys in by_meaning.items()
    ]


def _listed(values: Iterable[Any]) -> str:
    words = [MISSING if value is None else str(value) for value in values]
    return ", ".join(w if len(w) <= MAX_TEXT else f"{w[: MAX_TEXT - 1]}…" for w in words)


def _environment(*keys: str) -> Callable[[Run], Any]:
    return lambda run: [run.environment.get(key) for key in keys]
