"""How a comparison was made: the runs, the commands that make it again, the definitions."""

import shlex
from collections.abc import Sequence
from typing import Any

import headless
from headless.pages.numbers import MISSING, decimals
from headless.pages.page import Cell, Column, Page
from headless.reports.comparison import Comparison
from headless.reports.headline import baseline_of
from headless.reports.reading import Run
from headless.runs.directory import RunDirectory

NOT_KNOWN = "not known"
DEFINITIONS = (
    ("LM head", "How a model turns its hidden states h into next-token logits. For cross-entropy "
     "the head it was trained with. For the headless objective the calibrated head, "
     "`logits = h·Eᵀ/T + log p(v)`: E is the input embedding table, T the temperature of the "
     "objective and p the unigram distribution of the training text (counts plus one). It has no "
     "parameter of its own and is not trained."),
    ("nll", "Mean negative log-likelihood of the validation tokens under that head, in nats per "
     "token; perplexity is its exponential."),
    ("bits per byte", "nll of the scored tokens divided by ln 2 and by the UTF-8 bytes that they "
     "stand for. It is the one score that can be compared between tokenizers, where these give "
     "every text back as it was; where one does not, the number has a star."),
    ("accuracy", "Share of validation tokens that the head ranks first."),
    ("bare head", "nll of the headless model under `logits = h·Eᵀ/T`, the tied head without "
     "log p(v): what a reader who reuses the weights the usual way would see."),
    ("time, speed", "Seconds of training alone: validation, checkpoints and the monitors' own time "
     "are left out, and what stands under start-up: compilation and the first steps, where the "
     "run has measured them apart. Speed is training tokens divided by it."),
    ("FLOPs", "Of forward and backward pass, counted from the shapes: a headless step scores its "
     "rows against the distinct targets of the batch, a vanilla one against the vocabulary."),
    ("memory", "Largest amount held in training, and apart from it in its pauses, validation and "
     "the monitors' own looks: allocated on the GPU, or of the process where there is none (host). "
     "Runs of earlier versions have one number for both (with validation)."),
    ("anisotropy", "Mean cosine over all pairs of hidden states of the probe batch, without "
     "position 0, whose vectors are nearly equal in many models; of the embedding table: over all "
     "pairs of rows. 0 is isotropic, 1 is a single direction."),
    ("effective rank", "Exponential of the entropy of the normalised singular values of the "
     "centred vectors (Roy and Vetterli, 2007), from 1 to the width. A sample of few vectors holds "
     "it down: noise is what as many Gaussian vectors of independent entries have, by the law of "
     "Marchenko and Pastur."),
    ("± ", "95 % interval of the mean over seeds, Student's t with n − 1 degrees of freedom. "
     "Differences from the baseline are paired by the seeds that both have; with fewer than two of "
     "these the interval is Welch's."),
)  # fmt: skip


def add_method(page: Page, comparison: Comparison) -> None:
    """The section: the runs, what makes it again, and what the words mean."""
    groups = [*comparison.groups, *comparison.tuned]
    runs = [run for group in groups for run in group.runs]
    page.heading("How this was made")
    columns = [
        Column("run", "", "left"),
        Column("seed"),
        Column("steps"),
        Column("wall clock", "seconds"),
        Column("hardware", "", "left"),
        Column("code", "", "left"),
    ]
    rows: list[list[Cell | str]] = []
    for group in groups:
        for run in group.runs:
            state = "" if run.finished else "not finished"
            rows.append(
                [
                    Cell(run.name, state, swatch=group.index),
                    MISSING if run.seed is None else str(run.seed),
                    decimals(run.value("step"), 0),
                    decimals(run.summary.get("wall_seconds"), 0),
                    _hardware(run.environment),
                    _code(run.environment),
                ]
            )
    if rows:
        page.table(columns, rows, "The runs. Wall clock counts everything, from start to end.")
    if comparison.left_out:
        page.notes(comparison.left_out, title="Left out")
    page.heading("To make it again", level=3)
    page.code("\n".join(_commands(comparison, runs)))
    if runs:
        with page.details("Commands as they were given, and versions"):
            page.code("\n".join(f"{run.name}: {_command(run)}" for run in runs))
            page.definitions(_versions(runs))
        page.heading("Definitions", level=3)
        page.definitions(DEFINITIONS)
    page.paragraph(f"Made by headless {headless.__version__} from the files named above alone.")


def _commands(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    """The runs, the fine-tunings and the comparison, as one would call them."""
    commands = [_command(run, again=True) for run in runs]
    for one in comparison.finetunings:
        config, output = RunDirectory(one.path).config, f"{one.path}-again"
        commands.append(
            f"headless finetune --config {shlex.quote(str(config))} --output {shlex.quote(output)}"
        )
    places = [*(run.directory.path for run in runs), *(one.path for one in comparison.finetunings)]
    parts = [shlex.quote(str(place)) for place in places]
    if comparison.groups and comparison.baseline not in (None, baseline_of(comparison.groups)):
        parts.append(f"--baseline {shlex.quote(comparison.baseline.label)}")
    output = shlex.quote(str(comparison.report.parent))
    parts.append(f"--output {output} --overwrite true")
    return [*commands, " \\\n    ".join(["headless compare", *parts])]


def _hardware(environment: dict[str, Any]) -> Cell:
    gpus = [str(name) for name in environment.get("gpus") or []]
    cpu = str(environment.get("cpu") or NOT_KNOWN)
    cores = environment.get("cores")
    processor = f"{cpu}, {cores} cores" if cores else cpu
    if not gpus:
        return Cell(processor)
    names = sorted(set(gpus))
    return Cell(", ".join(f"{gpus.count(name)} × {name}" for name in names), processor)


def _code(environment: dict[str, Any]) -> Cell:
    commit = environment.get("commit")
    version = environment.get("headless") or NOT_KNOWN
    if not commit:
        return Cell(str(version))
    return Cell(str(version), str(commit)[:10] + (", modified" if environment.get("dirty") else ""))


def _command(run: Run, again: bool = False) -> str:
    if again:
        config, name = shlex.quote(str(run.directory.config)), shlex.quote(f"{run.name}-again")
        return f"headless pretrain --config {config} --run.name {name}"
    return str(run.environment.get("command") or NOT_KNOWN)


def _versions(runs: Sequence[Run]) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for run in runs:
        packages = {
            "python": run.environment.get("python"),
            **(run.environment.get("packages") or {}),
        }
        for name, version in packages.items():
            if version:
                found.setdefault(name, set()).add(str(version))
    return [(name, ", ".join(sorted(versions))) for name, versions in found.items()]
