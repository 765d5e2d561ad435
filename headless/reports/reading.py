"""Run directories as a comparison reads them, and runs of one recipe as a group.

Only the files of a run directory are read. A run that is still going, or was stopped, has no
summary or an old one: what its metrics say counts then.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from headless.errors import HeadlessError
from headless.pages.numbers import MISSING
from headless.runs.directory import RunDirectory, open_run
from headless.runs.evaluations import Evaluation, read_evaluations
from headless.runs.metrics import read_metrics

# What may differ between two runs of one recipe: seeds, names, places, what is only shown.
NOT_THE_RECIPE = (
    "seed_everything",
    "run.",
    "config",
    "ckpt_path",
    "data.seed",
    "model.init_from",  # what it says of the source stands in `Run.begins_from`
    "data.path",
    "data.num_workers",
    "data.verify",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.logger",
)
AXES = ("tokens", "seconds", "flops")
STARTS = {"source": "its own", "embedding": "the embeddings", "random": "random weights"}


@dataclass(frozen=True)
class Run:
    """What the files of a run directory say."""

    directory: RunDirectory
    config: dict[str, Any]
    summary: dict[str, Any]
    environment: dict[str, Any]
    points: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    evaluations: list[Evaluation]
    analysis: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.summary.get("name") or self.directory.path.name)

    @property
    def seed(self) -> int | None:
        """The seed of weights and data order."""
        seed = self.summary.get("seed", self.config.get("seed_everything"))
        return int(seed) if seed is not None else None

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.summary.get("finished"))

    @property
    def objective(self) -> str:
        """A few words on what it was trained for."""
        return str(self.summary.get("objective") or self.objective_class)

    @property
    def objective_class(self) -> str:
        """The objective's class name."""
        path = self.flat_config.get("model.objective.class_path", "unknown objective")
        return str(self.summary.get("objective_class") or str(path).rsplit(".", 1)[-1])

    @property
    def init_from(self) -> str | None:
        """The trained model that it began from; None for a run from nothing."""
        return self.flat_config.get("model.init_from")

    @property
    def begins_from(self) -> str | None:
        """A few words on that model: the same for all seeds."""
        return self.summary.get("begins_from") or self.init_from

    @property
    def init_head(self) -> str:
        """Where its LM head began: "source", "embedding" or "random"."""
        return str(self.flat_config.get("model.init_head", "random"))

    @property
    def width(self) -> int | None:
        """The hidden size."""
        width = self.summary.get("hidden_size") or self.flat_config.get(
            "model.backbone.hidden_size"
        )
        return int(width) if width else None

    @property
    def tokenizer(self) -> str | None:
        """A digest of the tokenizer."""
        return self.summary.get("tokenizer_sha256")

    @property
    def dataset(self) -> str:
        """A digest of the data; its name where an unfinished run has none yet."""
        return self.summary.get("dataset_sha256") or self.data

    @property
    def data(self) -> str:
        """The name of the data: the last part of its path, which differs between machines."""
        return Path(str(self.flat_config.get("data.path", "unknown"))).name

    @cached_property
    def flat_config(self) -> dict[str, Any]:
        """The config with dotted keys; lists are values."""
        return dict(flatten(self.config))

    @cached_property
    def last(self) -> dict[str, float]:
        """The last value of each metric; the summary's where the metrics are missing."""
        found = {k: v for k, v in (self.summary.get("last") or {}).items() if is_number(v)}
        for point in self.points:
            for key, value in point.items():
                if is_number(value):
                    found[key] = value
                elif value is None:  # it was not finite: an older value would be a better lie
                    found.pop(key, None)
        return found

    @property
    def layers(self) -> list[str]:
        """The names of the layers whose geometry was measured, first to last."""
        prefixes = ("geometry/anisotropy/", "geometry/effective_rank/")
        names = {key.split("/")[2] for key in self.last if key.startswith(prefixes)}
        return sorted(name for name in names if name.startswith("layer_"))

    def value(self, key: str) -> float | None:
        """A number by the name of a metric, of a summary's entry, or `…/last_layer`."""
        if key.endswith("/last_layer"):
            layers = self.layers
            return self.last.get(key.removesuffix("last_layer") + layers[-1]) if layers else None
        if key == "tokens_per_second" and not is_number(self.summary.get(key)):
            tokens, seconds = self.value("tokens"), self.value("seconds")
            return tokens / seconds if tokens and seconds else None
        if key == "step_ms":  # over all steps: the last logged window is a noisy one
            tokens, steps = self.value("tokens"), self.value("step")
            speed = self.value("tokens_per_second")  # of the steps that were timed
            return 1000 * tokens / steps / speed if tokens and steps and speed else None
        if key in (*AXES, "step"):
            total = "steps" if key == "step" else key
            ends = [self.last.get(f"progress/{key}"), self.summary.get(total)]
            return max((float(v) for v in ends if v is not None and is_number(v)), default=None)
        if is_number(self.summary.get(key)):
            return self.summary[key]
        if key == "peak_memory_gib":
            gpu, host = self.last.get("memory/peak_gib"), self.last.get("memory/peak_host_gib")
            return gpu if gpu is not None else host
        return self.last.get(key)

    @property
    def memory_kind(self) -> str:
        """Whose memory the peak is: "gpu" or "host"."""
        kind = "gpu" if "memory/peak_gib" in self.last else "host"
        return str(self.summary.get("memory_kind") or kind)

    def curve(self, key: str, axis: str) -> tuple[list[float], list[float]]:
        """The points of a metric over "tokens", "seconds", "flops" or "step", in their order."""
        pairs = [
            (float(point[f"progress/{axis}"]), float(point[key]))
            for point in self.points
            if is_number(point.get(key)) and is_number(point.get(f"progress/{axis}"))
        ]
        pairs.sort(key=lambda pair: pair[0])
        return [x for x, _ in pairs], [y for _, y in pairs]


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

    def by_seed(self, key: str) -> dict[int, float | None]:
        """A number of every run, by its seed; runs without a seed are numbered below zero."""
        return {
            run.seed if run.seed is not None else -1 - place: run.value(key)
            for place, run in enumerate(self.runs)
        }


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        HeadlessError: not a run directory, or a file in it is damaged.
    """
    directory = open_run(path)
    try:
        return Run(
            directory=directory,
            config=directory.read_config() or {},
            summary=directory.read_summary(),
            environment=directory.read_environment(),
            points=read_metrics(directory.metrics),
            samples=read_metrics(directory.samples),
            evaluations=read_evaluations(directory.evaluations),
            analysis=_read_analysis(directory.analysis / "analysis.json"),
        )
    except (ValueError, yaml.YAMLError) as error:
        raise HeadlessError(f"{path} holds a damaged file, leave this run out: {error}") from error


def _read_analysis(path: Path) -> dict[str, Any]:
    """What `headless analyze` wrote; empty where it was not called."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_groups(paths: Sequence[Path]) -> list[Group]:
    """Read run directories and group the runs of one recipe, in the order in which they come.

    Raises:
        HeadlessError: none given, one given twice, or one that cannot be read.
    """
    if not paths:
        raise HeadlessError("name the runs to compare: headless compare runs/a runs/b --output DIR")
    groups: dict[str, Group] = {}
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise HeadlessError(f"{path} is named twice: name each run once")
        seen.add(path.resolve())
        run = read_run(path)
        groups.setdefault(recipe(run), Group([], len(groups))).runs.append(run)
    _label(list(groups.values()))
    return list(groups.values())


def recipe(run: Run) -> str:
    """What makes two runs the same but for their seed: the resolved config and the data."""
    settings = {k: v for k, v in run.flat_config.items() if not k.startswith(NOT_THE_RECIPE)}
    parts = [settings, run.dataset, run.tokenizer, run.begins_from]
    return json.dumps(parts, sort_keys=True, default=str)


def differing_settings(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The settings in which the groups differ: dotted key to a text for each group.

    Where a run was kept, what it was called and its seed are left out.
    """
    configs = [group.first.flat_config for group in groups]
    found = {}
    for key in sorted({key for config in configs for key in config}):
        texts = [_text(config[key]) if key in config else MISSING for config in configs]
        kept = key == "data.path" or not key.startswith(NOT_THE_RECIPE)
        if kept and len(set(texts)) > 1:
            found[key] = texts
    return found


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


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
    labels = [group.label for group in groups]
    for group in groups:
        if labels.count(group.label) > 1:
            group.label += f" ({group.first.name})"
