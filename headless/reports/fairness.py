"""What a reader must know before comparing: sentences on what differs besides the objective."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headless.files import is_moved_aside
from headless.pages.numbers import MISSING, compact
from headless.reports.groups import Group
from headless.reports.reading import Run
from headless.reports.settings import (
    OBJECTIVE,
    STEP_FACTORS,
    counting,
    differing,
    sequences_per_step,
)

TOKEN_TOLERANCE = 0.005  # of the budget: the last step of a run may be a partial one
BEGINNINGS = ("model.init_head", "model.freeze_backbone")
MAX_TEXT = 40  # letters of a value in a sentence
# What a difference means, where that can be said; the most special name of a setting first.
MEANINGS = {
    "data.sequence_length": "sequence lengths: a longer context makes each token easier",
    "data.batch_size": "micro-batch sizes: a headless run has as many negatives as it has rows",
    "data.val_batch_size": "parts of the validation text that were scored",
    "trainer.limit_val_batches": "parts of the validation text that were scored",
    "model.backbone": "backbones",
    "model.optimizer": "optimizer settings",
    "model.schedule": "learning-rate schedules",
    "model.compile": "compilation: time and memory are not the objective's alone",
    "trainer.precision": "numeric precisions: time and memory are not the objective's alone",
    "trainer.devices": "numbers of devices: time and memory are not the objective's alone",
    "trainer.num_nodes": "numbers of nodes: time and memory are not the objective's alone",
    "trainer": "settings of the trainer",
    "data": "settings of the data",
    "model": "settings of the model besides the objective",
    "": "settings",
}


def unfair(groups: Sequence[Group]) -> list[str]:
    """Sentences on what makes these runs hard to compare; none when nothing does.

    Where all began from trained models, what they began from is compared, and may differ.
    """
    runs = [run for group in groups for run in group.runs]
    beginnings = all(run.init_from for run in runs)
    found = [*_unfinished(runs), *_moved_aside(runs), *_changed(runs), *_budgets(runs)]
    if not same_tokenizer(groups):
        found.append(
            "The runs used different tokenizers: nats per token, perplexity and accuracy count "
            f"other units for each of them. {_across_tokenizers(groups)}"
        )
    if not same_data(groups):
        names = ", ".join(sorted({run.data for run in runs}))
        found.append(f"The runs were trained on different data ({names}).")
    if not beginnings and _several(runs, lambda run: run.begins_from):
        names = ", ".join(sorted({run.begins_from or "random weights" for run in runs}))
        found.append(f"The runs began from different models ({names}).")
    found += _settings(runs, (OBJECTIVE, *(BEGINNINGS if beginnings else ())))
    if not same_hardware(groups):
        found.append("The runs were made on different hardware: do not compare time and memory.")
    if not same_clock(groups):
        found.append(
            "The time of some runs is without compilation and the first steps, that of others (an "
            "earlier version) with them: do not compare it."
        )
    if len({run.memory_scope for run in runs if run.summary}) > 1:
        found.append(
            "The memory of some runs is of training alone, that of others (an earlier version) of "
            "training and validation: do not compare it."
        )
    if _several(runs, _environment("commit", "headless")):
        found.append("The runs were made with different versions of the code.")
    return found + _seeds(groups)


def _unfinished(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs if not run.finished]
    if not names:
        return []
    are = "is" if len(names) == 1 else "are"
    return [f"Not finished: {', '.join(names)}. What is shown {are} the last logged values."]


def _moved_aside(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs if is_moved_aside(run.directory.path)]
    if not names:
        return []
    listed = ", ".join(names)
    return [f"Moved aside by a later run of the same name, and here since it was named: {listed}."]


def _changed(runs: Sequence[Run]) -> list[str]:
    kept = {run.name: run.directory.earlier_configs() for run in runs}
    listed = [
        f"{name} ({', '.join(p.name for p in paths)})" for name, paths in kept.items() if paths
    ]
    if not listed:
        return []
    return [f"Began with other settings than those that are compared: {'; '.join(listed)}."]


def same_tokenizer(groups: Sequence[Group]) -> bool:
    """Whether all runs whose tokenizer is known used the same one."""
    known = {run.tokenizer for group in groups for run in group.runs} - {None}
    return len(known) < 2


def same_unit(key: str, groups: Sequence[Group]) -> bool:
    """Whether a score counts the same for all: bits per byte also does between tokenizers, where
    all of these give the text back."""
    return same_tokenizer(groups) or (key.endswith("bits_per_byte") and not inexact(groups))


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


def _across_tokenizers(groups: Sequence[Group]) -> str:
    if inexact(groups):
        return (
            "Bits per byte does not help here, since a tokenizer does not give the text back: "
            "these scores cannot be compared."
        )
    return "Compare bits per byte."


def same_data(groups: Sequence[Group]) -> bool:
    """Whether all runs had the same data: by its digest, and by its name where a run has none."""
    runs = [run for group in groups for run in group.runs]
    known = {digest for run in runs if (digest := run.summary.get("dataset_sha256"))}
    return len(known) < 2 and (
        all(run.summary.get("dataset_sha256") for run in runs)
        or not _several(runs, lambda r: r.data)
    )


def same_clock(groups: Sequence[Group]) -> bool:
    """Whether the seconds of all runs are of the same steps: earlier versions counted all."""
    summaries = [run.summary for group in groups for run in group.runs if run.summary]
    return len({"startup_seconds" in summary for summary in summaries}) < 2


def same_hardware(groups: Sequence[Group]) -> bool:
    """Whether all runs were made on machines of one kind."""
    runs = [run for group in groups for run in group.runs]
    return not _several(runs, _environment("cpu", "gpus", "cores"))


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


def _settings(runs: Sequence[Run], compared: Sequence[str]) -> list[str]:
    """A sentence for each kind of setting that differs besides what is compared."""
    configs = [counting(run.settings) for run in runs]
    differences = {
        key: texts
        for key, texts in differing(configs).items()
        if not any(_is_below(key, name) for name in compared)
    }
    found = []
    steps = {sequences_per_step(run.settings) for run in runs} - {None}
    if len(steps) > 1:
        factors = ", ".join(f"`{key}`" for key in STEP_FACTORS if key in differences)
        found.append(
            f"The runs have different batches of an optimizer step ({_listed(sorted(steps))} "
            f"sequences over all devices; {factors})."
        )
    by_meaning: dict[str, list[str]] = {}
    for key, texts in differences.items():
        meaning = next(words for name, words in MEANINGS.items() if _is_below(key, name))
        values = _listed(dict.fromkeys(texts))
        by_meaning.setdefault(meaning, []).append(f"`{key}`: {values}")
    return found + [
        f"The runs have different {meaning} ({'; '.join(keys)})."
        for meaning, keys in by_meaning.items()
    ]


def _is_below(key: str, name: str) -> bool:
    return not name or f"{key}.".startswith(f"{name}.")


def _listed(values: Iterable[Any]) -> str:
    words = [MISSING if value is None else str(value) for value in values]
    return ", ".join(w if len(w) <= MAX_TEXT else f"{w[: MAX_TEXT - 1]}…" for w in words)


def _environment(*keys: str) -> Callable[[Run], Any]:
    return lambda run: [run.environment.get(key) for key in keys]


def _several(runs: Sequence[Run], read: Callable[[Run], Any]) -> bool:
    return len({repr(read(run)) for run in runs}) > 1
