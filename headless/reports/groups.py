"""Runs of one recipe as a group, and what the groups differ in.

Of the settings of a resolved config all count that are not known to leave a run's numbers alone:
one that nobody thought of does. What does not count is named here, with its reason.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.pages.numbers import MISSING
from headless.reports.statistics import known
from headless.reports.tables import Row
from headless.runs.resume import OBSERVING, is_among
from headless.runs.run import Run
from headless.structured import damaged, is_number

HEAD_STARTS = {"source": "its own", "embedding": "the embeddings", "random": "random weights"}
OBJECTIVE = "model.objective"  # what is compared
Config = Mapping[str, Any]  # a resolved config with dotted keys

# Seeds, labels and places: a comparison tells runs and data apart by what they hold.
LABELS = (
    *("seed_everything", "data.seed", "run", "config", "ckpt_path", "trainer.default_root_dir"),
    "data.path",  # the data's digest counts
    "model.init_from",  # what the source was counts
)
# What simple models of the text score, the weakest first: `headless prepare` computes
# them, a run's summary has them as `anchors`, in nats per token of the validation text. The bigrams
# are interpolated with the unigrams.
ANCHORS = ("uniform", "unigram", "bigram")
OVER = "over/"  # "over/unigram": the nll, less that anchor's nats
STEP_FACTORS = (
    *("data.batch_size", "trainer.accumulate_grad_batches"),
    *("trainer.devices", "trainer.num_nodes"),
)


@dataclass
class Group(Row):
    """Runs of one recipe; `index` is the place among the groups, which gives it its colour."""

    runs: list[Run]
    index: int
    label: str = ""

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def seeds(self) -> list[int]:  # type: ignore[override]
        """Of the runs; one without is numbered below zero."""
        return [-1 - i if run.seed is None else run.seed for i, run in enumerate(self.runs)]

    @property
    def count(self) -> str:
        return f"{len(self.runs)} run{'s' * (len(self.runs) > 1)}"

    @property
    def about(self) -> str:  # type: ignore[override]
        compiled = self.first.settings.get("model.compile")
        state = None if compiled is None else "compiled" if compiled else "eager"
        arithmetic = (state, self.first.settings.get("trainer.precision"))
        words = (self.first.summary.get("backbone"), self.count, *arithmetic)
        return ", ".join(str(word) for word in words if word)

    def values(self, key: str) -> list[float | None]:
        return [value_of(run, key) for run in self.runs]

    def partners(self, run: Run) -> list[Run]:
        """The runs to hold a run of another group against: those with its seed, or else all."""
        same = [one for one in self.runs if one.seed == run.seed and run.seed is not None]
        return same or self.runs

    @property
    def inexact_share(self) -> float:
        """Share of the bytes in documents that a tokenizer does not give back: the largest."""
        return max([0.0, *known(run.summary.get("inexact_share") for run in self.runs)])


def value_of(run: Run, key: str) -> float | None:
    """A number of a run, or what follows from several.

    "rows" are those of one loss: of a micro-batch on one device. "unique_share" is the mean share
    of the vocabulary that is among a micro-batch's targets.
    """
    if key.startswith(OVER):
        nll = run.value("val/nll")
        nats = (run.summary.get("anchors") or {}).get(key.removeprefix(OVER))
        return nll - nats if nll is not None and is_number(nats) else None
    if key == "rows":
        masked = run.settings.get("data.task") == "masked"
        names = ("batch_size", "sequence_length", *["mask_probability"] * masked)
        shape: list[Any] = [run.settings.get(f"data.{name}") for name in names]
        return float(round(math.prod(shape))) if all(map(is_number, shape)) else None
    if key == "unique_share":
        unique, size = run.value("train/unique_targets"), run.value("vocab_size")
        return unique / size if unique and size else None
    return run.value(key)


def tags_of(run: Run) -> list[str]:
    tags = run.flat_config.get("run.tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def runs_of(groups: Iterable[Group]) -> list[Run]:
    """The runs of all groups."""
    return [run for group in groups for run in group.runs]


def differ(groups: Iterable[Group], read: Callable[[Run], Any]) -> bool:
    """Whether something is not the same in all runs."""
    return len({repr(read(run)) for run in runs_of(groups)}) > 1


def anchors_of(groups: Iterable[Group]) -> dict[str, float]:
    """The nats of the anchors that all runs which have some agree on."""
    known = [anchors for run in runs_of(groups) if (anchors := run.summary.get("anchors"))]
    values = {name: [one.get(name) for one in known] for name in ANCHORS}
    return {
        name: float(several[0])
        for name, several in values.items()
        if several and all(is_number(v) and abs(v - several[0]) < 1e-6 for v in several)
    }


def read_groups(paths: Sequence[Path]) -> list[Group]:
    """Read run directories and group the runs of one recipe, in the order in which they come."""
    groups: dict[str, Group] = {}
    for path in paths:
        run = Run(path).read()
        if isinstance(run.config.get("model"), str) and "task" in run.config:
            raise HeadlessError(
                f"{path} is a fine-tuning that has no results: headless finetune did not come to "
                "its end there; leave it out"
            )
        if run.init_head not in HEAD_STARTS:
            raise damaged(run.directory.config, f"model.init_head is {run.init_head!r}")
        groups.setdefault(recipe(run), Group([], len(groups))).runs.append(run)
    _label(list(groups.values()))
    return list(groups.values())


def recipe(run: Run) -> str:
    """What makes two runs the same but for their seed: the resolved config and the data."""
    settings = {key: canonical(value) for key, value in counting(run.settings).items()}
    data = run.summary.get("dataset_sha256") or run.data  # an unfinished run has no digest yet
    parts = [settings, data, run.summary.get("tokenizer_sha256"), run.begins_from]
    return json.dumps(parts, sort_keys=True, default=str)


def differing_settings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The settings in which the groups differ and that count: dotted key to a text for each."""
    return differing([counting(group.first.settings) for group in groups])


def observing_differences(groups: Sequence[Group]) -> list[str]:
    """The settings that differ and cannot change a number: keys, for the record."""
    configs = [run.settings for run in runs_of(groups)]
    return [key for key in differing(configs) if all(observes(key, c) for c in configs)]


def _subject(run: Run) -> str:
    """What a run trained: its objective, or what was done to which model."""
    if run.init_from is None:
        return str(run.summary.get("objective") or run.objective_class)
    frozen = ", head only" if run.flat_config.get("model.freeze_backbone") else ""
    return f"{run.begins_from}, head from {HEAD_STARTS[run.init_head]}{frozen}"


def _name(group: Group, groups: Sequence[Group]) -> str:
    """The tag that all its runs have and no other's, as those of a sweep's arm, or the first
    run's name."""
    others = {
        tag for other in groups if other is not group for r in other.runs for tag in tags_of(r)
    }
    own = [t for t in tags_of(group.first) if all(t in tags_of(run) for run in group.runs)]
    return next((tag for tag in own if tag not in others), group.first.name)


def _label(groups: list[Group]) -> None:
    """Name groups by their objective; where several share it, add what they differ in."""
    names = [_subject(group.first) for group in groups]
    for group, name in zip(groups, names, strict=True):
        same = [g for g, other in zip(groups, names, strict=True) if other == name]
        texts = [
            f"{key.rsplit('.', 1)[-1]}={values[same.index(group)]}"
            for key, values in differing_settings(same).items()
        ]
        short = ", ".join(texts) if len(texts) <= 2 else ""
        group.label = name + (f", {short or _name(group, groups)}" if len(same) > 1 else "")
    paths = [os.path.abspath(group.first.directory) for group in groups]
    common = os.path.commonpath(paths) if len({Path(path).anchor for path in paths}) == 1 else None
    names = [group.first.name for group in groups]
    for more in (names, [os.path.relpath(path, common) for path in paths]):
        labels = [group.label for group in groups]
        for group, name in zip(groups, more, strict=True):
            if labels.count(group.label) > 1 and not group.label.endswith(name):
                group.label += f" ({name})"


def observes(key: str, config: Config) -> bool:
    """Whether a setting can change neither the trained model nor its scores."""
    if key == "data.val_batch_size":  # with it the text that is scored grows, if that is limited
        limit = config.get("trainer.limit_val_batches")
        return limit is None or (isinstance(limit, float) and limit == 1.0)
    return is_among(key, OBSERVING)


def counting(config: Config) -> dict[str, Any]:
    """The settings that make a recipe."""
    return {
        key: value
        for key, value in config.items()
        if value is not None and not is_among(key, LABELS) and not observes(key, config)
    }


def differing(configs: Sequence[Config]) -> dict[str, list[str]]:
    """The keys whose values are not the same in all of them, and each one's value as a text.

    What a config does not have is the same as what it leaves open (null): another version wrote it.
    """
    return {
        key: [text(config[key]) if key in config else MISSING for config in configs]
        for key in sorted({key for config in configs for key in config})
        if len({canonical(config.get(key)) for config in configs}) > 1
    }


def sequences_per_step(config: Config) -> int | None:
    """Sequences of one optimizer step on all devices together; None where that is not known."""
    values = [config.get(key) for key in STEP_FACTORS]
    counts = [1 if v is None else len(v) if isinstance(v, list) else v for v in values]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in counts)
    return math.prod(counts) if whole else None


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def canonical(value: Any) -> str:
    """A text that two values share where they are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, list):
        return f"[{', '.join(map(canonical, value))}]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        value = float(value)
    return json.dumps(value, default=str, sort_keys=True)
