"""What a reader must know before comparing: sentences on what differs besides the objective."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headless.files import is_moved_aside
from headless.pages.numbers import MISSING, compact
from headless.reports.groups import (
    ANCHORS,
    OBJECTIVE,
    STEP_FACTORS,
    Group,
    counting,
    differ,
    differing,
    runs_of,
    sequences_per_step,
    tags_of,
)
from headless.reports.texts import TEXTS
from headless.runs.resume import is_among
from headless.runs.run import Run
from headless.structured import is_number

TOKEN_TOLERANCE = 0.005  # of the budget: the last step of a run may be a partial one
BEGINNINGS = ("model.init_head", "model.freeze_backbone")
TUNED = "tuned"  # the tag of runs whose learning rates are the best of their own recipe
MAX_TEXT = 40  # letters of a value in a sentence
SENTENCES, REMARKS = TEXTS["unfair"], TEXTS["remarks"]
# What a difference means, where that can be said; the most special name of a setting first.
MEANINGS: dict[str, str] = TEXTS["meanings"]


def unfair(groups: Sequence[Group]) -> list[str]:
    """Sentences on what makes these runs hard to compare; none when nothing does.

    Where all began from trained models, what they began from is compared, and may differ.
    """
    runs = runs_of(groups)
    tuned = all(run.init_from for run in runs)
    began = differ(groups, lambda run: run.begins_from) and not tuned
    starts = sorted({run.begins_from or "random weights" for run in runs})
    across = SENTENCES["inexact" if inexact(groups) else "exact"]
    return [
        *_about_single(runs),
        *_budgets(runs),
        *_sentence("tokenizers", not same_tokenizer(groups), across=across),
        *_sentence("data", not same_data(groups), names=", ".join(sorted({r.data for r in runs}))),
        *_sentence("beginnings", began, names=", ".join(starts)),
        *_settings(runs, (OBJECTIVE, *(BEGINNINGS if tuned else ()))),
        *_sentence("hardware", not same_hardware(groups)),
        *_sentence("code", differ(groups, _environment("commit", "headless"))),
        *_seeds(groups),
    ]


def _sentence(name: str, holds: Any, **values: str) -> list[str]:
    return [SENTENCES[name].format(**values)] if holds else []


def _about_single(runs: Sequence[Run]) -> list[str]:
    """What is special about some of them: not finished, moved aside, changed on their way; and
    those that have learned little, or nothing after their first validation."""
    earlier = {run.name: run.directory.earlier_configs() for run in runs}
    changed = [f"{name} ({', '.join(p.name for p in found)})" for name, found in earlier.items()]
    names = {
        "unfinished": [run.name for run in runs if not run.finished],
        "aside": [run.name for run in runs if is_moved_aside(run.directory.path)],
        "changed": [words for words, found in zip(changed, earlier.values(), strict=True) if found],
        **{f"weak_{name}": [r.name for r in runs if unbeaten(r) == name] for name in ANCHORS},
        "stuck": [run.name for run in runs if best_at_first(run)],
    }
    return [
        SENTENCES[kind].format(names=", ".join(own), are="is" if len(own) == 1 else "are")
        for kind, own in names.items()
        if own
    ]


def unbeaten(run: Run) -> str | None:
    """The weakest anchor that a run's last validation is not better than."""
    nll, anchors = run.value("val/nll"), run.summary.get("anchors") or {}
    if nll is None:
        return None
    return next((a for a in ANCHORS if is_number(anchors.get(a)) and nll >= anchors[a]), None)


def best_at_first(run: Run) -> bool:
    """Whether none of its later validations was better than the first."""
    _, nll = run.curve("val/nll", "tokens")
    return len(nll) > 1 and nll[0] <= min(nll[1:])


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
    unknown = None in digests and differ(groups, lambda run: run.data)
    return len(digests - {None}) < 2 and not unknown


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
    return [REMARKS["lost"].format(lossy=lossy)] if lossy else []


def _budgets(runs: Sequence[Run]) -> list[str]:
    tokens = [t for run in runs if (t := run.value("tokens"))] or [0.0]
    least, most = min(tokens), max(tokens)
    different = most - least > TOKEN_TOLERANCE * most
    return _sentence("budgets", different, least=compact(least), most=compact(most))


def _seeds(groups: Sequence[Group]) -> list[str]:
    repeated = [g.label for g in groups if len(set(g.seeds)) < len(g.seeds)]
    different = len({frozenset(group.seeds) for group in groups}) > 1
    sentences = [SENTENCES["repeated_seeds"].format(label=label) for label in repeated]
    return sentences + _sentence("seeds", different)


def remarks(groups: Sequence[Group]) -> list[str]:
    """Sentences that are no fault of the comparison, but limit what it shows."""
    runs = runs_of(groups)
    single = any(len(group.runs) == 1 for group in groups)
    dirty = any(run.environment.get("dirty") for run in runs)
    rates = "; ".join(words for key, words in _differences(runs).items() if _is_tuned(key, runs))
    holds = {"single": single, "dirty": dirty, "rates": rates}
    return [REMARKS[name].format(rates=rates) for name, held in holds.items() if held]


def _is_tuned(key: str, runs: Sequence[Run]) -> bool:
    """Whether a setting is a learning rate, and every run says that its own were tuned."""
    is_rate = is_among(key, ("model.optimizer",)) and key.endswith("lr")
    return is_rate and all(TUNED in tags_of(run) for run in runs)


def _differences(runs: Sequence[Run]) -> dict[str, str]:
    """The settings that are not the same and count, each with its values."""
    differences = differing([counting(run.settings) for run in runs])
    return {key: f"`{key}`: {_listed(dict.fromkeys(v))}" for key, v in differences.items()}


def _settings(runs: Sequence[Run], compared: tuple[str, ...]) -> list[str]:
    """A sentence for each kind of setting that differs besides what is compared."""
    differences = _differences(runs)
    steps = sorted({n for run in runs if (n := sequences_per_step(run.settings))})
    factors = ", ".join(f"`{key}`" for key in STEP_FACTORS if key in differences)
    by_meaning: dict[str, list[str]] = {}
    for key, words in differences.items():
        if not is_among(key, compared) and not _is_tuned(key, runs):
            meanings = (meaning for name, meaning in MEANINGS.items() if is_among(key, (name,)))
            by_meaning.setdefault(next(meanings, "settings"), []).append(words)
    return _sentence("steps", len(steps) > 1, steps=_listed(steps), factors=factors) + [
        f"The runs have different {meaning} ({'; '.join(words)})."
        for meaning, words in by_meaning.items()
    ]


def _listed(values: Iterable[Any]) -> str:
    words = [MISSING if value is None else str(value) for value in values]
    return ", ".join(w if len(w) <= MAX_TEXT else f"{w[: MAX_TEXT - 1]}…" for w in words)


def _environment(*keys: str) -> Callable[[Run], Any]:
    return lambda run: [run.environment.get(key) for key in keys]
