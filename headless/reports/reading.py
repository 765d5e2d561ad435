"""Run directories as a comparison reads them, and runs of one recipe as a group.

Only the files of a run directory are read. A run that is still going, or was stopped, has no
summary or an old one: what its metrics say counts then.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from headless.errors import HeadlessError
from headless.pages.numbers import is_number
from headless.reports import records
from headless.reports.settings import flatten
from headless.runs.directory import RunDirectory, open_run
from headless.runs.evaluations import Evaluation, read_evaluations
from headless.runs.metrics import read_metrics

# Of the summary, and as the metrics name them: of a GPU's memory and of the host's.
PEAKS = {"peak_memory_gib": "peak", "peak_validation_memory_gib": "peak_validation"}
MEMORY_UNITS = ("gib", "host_gib")
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
        """The run's name: its directory's, whatever it was called when it was made."""
        return Path(os.path.abspath(self.directory.path)).name

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
    def inexact_share(self) -> float:
        """Share of the text's bytes in documents that its tokenizer does not give back."""
        share = self.summary.get("inexact_share")
        return float(share) if is_number(share) else 0.0

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
    def settings(self) -> dict[str, Any]:
        """The config as it was carried out: with what "auto" and null came to, where known."""
        found = dict(self.flat_config)
        if found.get("trainer.precision") is None:
            found["trainer.precision"] = self.environment.get("precision")
        devices = found.get("trainer.devices")
        if not isinstance(devices, int) or devices < 1:
            world, nodes = self.environment.get("devices"), found.get("trainer.num_nodes") or 1
            if isinstance(world, int) and isinstance(nodes, int) and nodes > 0:
                found["trainer.devices"] = max(1, world // nodes)
        return found

    @cached_property
    def last(self) -> dict[str, float]:
        """The last value of each metric.

        A finished run's are its summary's, written with its last point: metrics.jsonl may have
        lost its end since. Before that the summary stands in where the metrics are missing.
        """
        summary = {k: v for k, v in (self.summary.get("last") or {}).items() if is_number(v)}
        found, lost = dict(summary), set()
        for point in self.points:
            for key, value in point.items():
                if is_number(value):
                    found[key] = value
                    lost.discard(key)
                elif value is None:  # it was not finite: an older value would be a better lie
                    lost.add(key)
        if self.finished:
            found |= summary
        return {key: value for key, value in found.items() if key not in lost}

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
        if key in PEAKS:
            gpu, host = (self.last.get(f"memory/{PEAKS[key]}_{kind}") for kind in MEMORY_UNITS)
            return gpu if gpu is not None else host
        return self.last.get(key)

    @property
    def memory_kind(self) -> str:
        """Whose memory the peak is: "gpu" or "host"."""
        kind = "gpu" if "memory/peak_gib" in self.last else "host"
        return str(self.summary.get("memory_kind") or kind)

    @property
    def memory_scope(self) -> str:
        """When the peak was taken: "training", or "with validation" as earlier versions did."""
        key = "peak_validation_memory_gib"
        apart = key in self.summary or self.value(key) is not None or not self.summary
        return "training" if apart else "with validation"

    def curve(self, key: str, axis: str) -> tuple[list[float], list[float]]:
        """The points of a metric over "tokens", "seconds", "flops" or "step", in their order."""
        pairs = [
            (float(point[f"progress/{axis}"]), float(point[key]))
            for point in self.points
            if is_number(point.get(key)) and is_number(point.get(f"progress/{axis}"))
        ]
        pairs.sort(key=lambda pair: pair[0])
        return [x for x, _ in pairs], [y for _, y in pairs]


def keyed(runs: Sequence[Run], values: Sequence[float | None]) -> dict[int, float | None]:
    """One value a run by the run's seed; runs without a seed are numbered below zero."""
    return {
        run.seed if run.seed is not None else -1 - place: value
        for place, (run, value) in enumerate(zip(runs, values, strict=True))
    }


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        HeadlessError: not a run directory, or a file in it is damaged.
    """
    run = open_run(path)
    config = records.read(run.config, run.read_config, records.CONFIG)
    if isinstance(config.get("model"), str) and "task" in config:
        raise HeadlessError(
            f"{path} is a fine-tuning that has no results: headless finetune did not come to its "
            "end there; leave it out"
        )
    evaluations = read_evaluations(run.evaluations)
    analysis = run.analysis / "analysis.json"
    found = Run(
        directory=run,
        config=config,
        summary=records.read(run.summary, run.read_summary, records.SUMMARY),
        environment=records.read(run.environment, run.read_environment, records.ENVIRONMENT),
        points=read_metrics(run.metrics),
        samples=read_metrics(run.samples),
        evaluations=evaluations,
        analysis=records.read(analysis, partial(records.load_json, analysis), records.ANALYSIS),
    )
    records.checked_all(run.samples, found.samples, records.SAMPLE, ("prompt", "text"))
    shapes = [asdict(evaluation) for evaluation in evaluations]
    records.checked_all(run.evaluations, shapes, records.EVALUATION, records.EVALUATION_NEEDS)
    findings = found.analysis.get("findings") or []
    records.checked_all(analysis, findings, records.FINDING, ("name",))
    if found.init_head not in STARTS:
        raise records.damaged(run.config, f"model.init_head is {found.init_head!r}")
    return found
