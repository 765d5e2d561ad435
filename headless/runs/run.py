"""A run on the disk, as a notebook, a report and the library read it."""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headless
from headless.runs.directory import RunDirectory, open_run
from headless.runs.evaluations import Evaluation, read_evaluations
from headless.runs.metrics import read_metrics
from headless.structured import NUMBER, TEXT, WHOLE, check_entries, flatten, is_number, read_json

if TYPE_CHECKING:
    import pandas

CONFIG = {
    "seed_everything": WHOLE,
    "model.objective.class_path": TEXT,
    "model.backbone.hidden_size": WHOLE,
    "model.optimizer.lr": NUMBER,
    "model.init_from": TEXT,
    "model.init_head": TEXT,
    "data.path": TEXT,
}
SUMMARY = {
    **dict.fromkeys(("objective", "objective_class", "backbone", "begins_from"), TEXT),
    **dict.fromkeys(("tokenizer_sha256", "dataset_sha256", "memory_kind"), TEXT),
    **dict.fromkeys(("seed", "hidden_size"), WHOLE),
    "wall_seconds": NUMBER,
    **dict.fromkeys(("last", "anchors"), (dict,)),
}
ENVIRONMENT = {"gpus": (list,), "packages": (dict,)}
ANALYSIS = {"findings": (list,), "about": (dict,)}
FINDING = {
    **dict.fromkeys(("name", "answer"), TEXT),
    **dict.fromkeys(("scalars", "arrays"), (dict,)),
    "claims": (list,),
}
SAMPLE = {"prompt": TEXT, "text": TEXT, "progress/tokens": NUMBER}
# Of the summary, and as the metrics name them: of a GPU's memory and of the host's.
PEAKS = {"peak_memory_gib": "peak", "peak_validation_memory_gib": "peak_validation"}
MEMORY_UNITS = ("gib", "host_gib")
AXES = ("tokens", "seconds", "flops")


class Run:
    """What the files of a run directory say; each is read once, when it is first used.

    Its name is its directory's, whatever it was when the run was made. A run that still goes on, or
    was stopped, has no summary or an old one: what its metrics say counts then. A damaged file
    raises a HeadlessError that names it.
    """

    def __init__(self, place: Path | str | RunDirectory) -> None:
        self.directory = open_run(Path(place))

    def __repr__(self) -> str:
        return f"Run({str(self.directory.path)!r})"

    def __fspath__(self) -> str:
        return str(self.directory.path)

    def read(self) -> "Run":
        """Read every file now: a snapshot of a run that goes on, and damage is said here."""
        files = ("config", "summary", "environment", "points", "samples", "evaluations", "findings")
        for name in files:
            getattr(self, name)
        return self

    @cached_property
    def config(self) -> dict[str, Any]:
        return check_entries(self.directory.config, self.directory.read_config(), CONFIG)

    @cached_property
    def summary(self) -> dict[str, Any]:
        return check_entries(self.directory.summary, self.directory.read_summary(), SUMMARY)

    @cached_property
    def environment(self) -> dict[str, Any]:
        place = self.directory.environment
        return check_entries(place, self.directory.read_environment(), ENVIRONMENT)

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        return read_metrics(self.directory.metrics)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        place = self.directory.samples
        return [check_entries(place, s, SAMPLE, ("prompt", "text")) for s in read_metrics(place)]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        return read_evaluations(self.directory.evaluations)

    @cached_property
    def analysis(self) -> dict[str, Any]:
        """What `headless analyze` wrote; empty where it was not analysed."""
        place = self.directory.analysis / "analysis.json"
        return check_entries(place, read_json(place, dict) if place.is_file() else {}, ANALYSIS)

    @cached_property
    def findings(self) -> dict[str, dict[str, Any]]:
        place, findings = self.directory.analysis / "analysis.json", self.analysis.get("findings")
        checked = [check_entries(place, one, FINDING, ("name",)) for one in findings or []]
        for claim in (claim for one in checked for claim in one.get("claims") or []):
            check_entries(place, claim, {})
        return {finding["name"]: finding for finding in checked}

    def metrics(self) -> "pandas.DataFrame":
        """A row a logged point and a column a metric; NaN where a point does not hold it."""
        import pandas

        return pandas.DataFrame(self.points)

    def model(self) -> Any:
        """The trained model, as `headless.load` opens it."""
        return headless.load(self.directory.path)

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.directory.path)).name

    @property
    def seed(self) -> int | None:
        return self.summary.get("seed", self.config.get("seed_everything"))

    @property
    def finished(self) -> bool:
        return bool(self.summary.get("finished"))

    @property
    def objective_class(self) -> str:
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
        configured = self.flat_config.get("model.backbone.hidden_size")
        return self.summary.get("hidden_size") or configured or None

    @property
    def data(self) -> str:
        """The name of the data: the last part of its path, which differs between machines."""
        return Path(str(self.flat_config.get("data.path", "unknown"))).name

    @property
    def memory_kind(self) -> str:
        """Whose memory the peak is: "gpu" or "host"."""
        if "memory/peak_gib" in self.last:  # earlier versions' summaries called a GPU's the host's
            return "gpu"
        return str(self.summary.get("memory_kind") or "host")

    @property
    def memory_scope(self) -> str:
        """When the peak was taken: "training", or "with validation" as earlier versions did."""
        key = "peak_validation_memory_gib"
        apart = key in self.summary or self.value(key) is not None or not self.summary
        return "training" if apart else "with validation"

    @cached_property
    def flat_config(self) -> dict[str, Any]:
        return dict(flatten(self.config))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config as it was carried out: with what "auto" and null came to, where known."""
        settings = dict(self.flat_config)
        if settings.get("trainer.precision") is None:
            settings["trainer.precision"] = self.environment.get("precision")
        devices = settings.get("trainer.devices")
        if not isinstance(devices, int) or devices < 1:
            world, nodes = self.environment.get("devices"), settings.get("trainer.num_nodes") or 1
            if isinstance(world, int) and isinstance(nodes, int) and nodes > 0:
                settings["trainer.devices"] = max(1, world // nodes)
        return settings

    @cached_property
    def last(self) -> dict[str, float]:
        """The last value of each metric.

        A finished run's are its summary's, written with its last point: metrics.jsonl may have
        lost its end since. Before that the summary stands in where the metrics are missing.
        """
        summary = {k: v for k, v in (self.summary.get("last") or {}).items() if is_number(v)}
        values: dict[str, Any] = dict(summary)
        for point in self.points:
            # null was not finite: an older value would be a better lie
            values |= {k: v for k, v in point.items() if v is None or is_number(v)}
        lost = {key for key, value in values.items() if value is None}
        values |= summary if self.finished else {}
        return {key: value for key, value in values.items() if key not in lost}

    @cached_property
    def layers(self) -> list[str]:
        """The names of the layers whose geometry was measured, first to last."""
        prefixes = ("geometry/anisotropy/", "geometry/effective_rank/")
        names = {key.split("/")[2] for key in self.last if key.startswith(prefixes)}
        return sorted(name for name in names if name.startswith("layer_"))

    def value(self, key: str) -> float | None:
        """A number by the name of a metric, of a summary's entry, or `…/last_layer`."""
        if key.endswith("/last_layer"):
            last = self.layers[-1] if self.layers else ""
            return self.last.get(key.removesuffix("last_layer") + last)
        if key == "step_ms":  # over all steps: the last logged window is a noisy one
            tokens, steps = self.value("tokens"), self.value("step")
            speed = self.value("tokens_per_second")  # of the steps that were timed
            return 1000 * tokens / steps / speed if tokens and steps and speed else None
        if key in (*AXES, "step"):
            total = self.summary.get("steps" if key == "step" else key)
            ends = (self.last.get(f"progress/{key}"), total)
            return max((float(v) for v in ends if is_number(v)), default=None)
        if is_number(self.summary.get(key)):
            return self.summary[key]
        if key == "tokens_per_second":
            tokens, seconds = self.value("tokens"), self.value("seconds")
            return tokens / seconds if tokens and seconds else None
        if key in PEAKS:
            gpu, host = (self.last.get(f"memory/{PEAKS[key]}_{unit}") for unit in MEMORY_UNITS)
            return host if gpu is None else gpu
        return self.last.get(key)

    def curve(self, key: str, axis: str) -> tuple[list[float], list[float]]:
        """The points of a metric over "tokens", "seconds", "flops" or "step", in their order."""
        logged = [(point.get(f"progress/{axis}"), point.get(key)) for point in self.points]
        pairs = [(float(x), float(y)) for x, y in logged if is_number(x) and is_number(y)]
        pairs.sort(key=lambda pair: pair[0])
        return [x for x, _ in pairs], [y for _, y in pairs]
