"""Runs of one recipe as a group, and what the groups differ in."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headless.reports.reading import STARTS, Run, keyed, read_run
from headless.reports.settings import canonical, counting, differing, observes


@dataclass
class Group:
    """Runs of one recipe; `index` is the place among the groups, which gives it its colour."""

    runs: list[Run]
    index: int
    label: str = ""

    @property
    def first(self) -> Run:
        """One that stands for all where they agree."""
        return self.runs[0]

    def values(self, key: str) -> list[float | None]:
        """A number of every run, see `Run.value`."""
        return [run.value(key) for run in self.runs]

    @property
    def inexact_share(self) -> float:
        """See `Run.inexact_share`: the largest of them."""
        return max(run.inexact_share for run in self.runs)

    def by_seed(self, key: str) -> dict[int, float | None]:
        """A number of every run, by its seed."""
        return keyed(self.runs, self.values(key))


def read_groups(paths: Sequence[Path]) -> list[Group]:
    """Read run directories and group the runs of one recipe, in the order in which they come.

    Raises:
        HeadlessError: one that cannot be read.
    """
    groups: dict[str, Group] = {}
    for path in paths:
        run = read_run(path)
        groups.setdefault(recipe(run), Group([], len(groups))).runs.append(run)
    _label(list(groups.values()))
    return list(groups.values())


def recipe(run: Run) -> str:
    """What makes two runs the same but for their seed: the resolved config and the data."""
    settings = {key: canonical(value) for key, value in counting(run.settings).items()}
    parts = [settings, run.dataset, run.tokenizer, run.begins_from]
    return json.dumps(parts, sort_keys=True, default=str)


def differing_settings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The settings in which the groups differ and that count: dotted key to a text for each."""
    return differing([counting(group.first.settings) for group in groups])


def observing_differences(groups: Sequence[Group]) -> list[str]:
    """The settings that differ and cannot change a number: keys, for the record."""
    configs = [run.settings for group in groups for run in group.runs]
    return [key for key in differing(configs) if all(observes(key, c) for c in configs)]


def _subject(run: Run) -> str:
    """What a run trained: its objective, or what was done to which model."""
    if run.init_from is None:
        return run.objective
    frozen = ", head only" if run.flat_config.get("model.freeze_backbone") else ""
    return f"{run.begins_from}, head from {STARTS[run.init_head]}{frozen}"


def _label(groups: list[Group]) -> None:
    """Name groups by their objective; where two share it, add the settings in which they differ."""
    for group in groups:
        group.label = _subject(group.first)
    names = [group.label for group in groups]
    for group in groups:
        same = [g for g, name in zip(groups, names, strict=True) if name == group.label]
        if len(same) > 1:
            settings = differing_settings(same)
            texts = [f"{k.rsplit('.', 1)[-1]}={v[same.index(group)]}" for k, v in settings.items()]
            short = ", ".join(texts) if len(texts) <= 2 else group.first.name
            group.label += f", {short or group.first.name}"
    _tell_apart(groups, [group.first.name for group in groups])
    paths = [os.path.abspath(group.first.directory.path) for group in groups]
    common = os.path.commonpath(paths) if len({Path(path).anchor for path in paths}) == 1 else ""
    _tell_apart(groups, [os.path.relpath(path, common or None) for path in paths])


def _tell_apart(groups: Sequence[Group], names: Sequence[str]) -> None:
    """Add a name to each label that several groups share."""
    labels = [group.label for group in groups]
    for group, name in zip(groups, names, strict=True):
        if labels.count(group.label) > 1 and not group.label.endswith(name):
            group.label += f" ({name})"
