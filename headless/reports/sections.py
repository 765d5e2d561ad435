"""The sections of the comparison's page, in the order in which they are read."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headless
from headless.pages.numbers import MISSING, compact, decimals
from headless.pages.page import Cell, Column, Page, TextCard
from headless.reports.evaluations import add_zero_shot
from headless.reports.fairness import remarks, same_budget
from headless.reports.headline import baseline_of, headline, relative
from headless.reports.inside import add_inside
from headless.reports.lm_heads import add_lm_heads
from headless.reports.plots import costs, geometry, learning_curves
from headless.reports.reading import Group, Run, differing_settings
from headless.reports.statistics import estimate

MAX_PROMPTS = 4  # shown open; more are folded away
NOT_KNOWN = "not known"

DEFINITIONS = (
    ("LM head", "How a model turns its hidden states h into next-token logits. For cross-entropy "
     "the head it was trained with. For the headless objective the calibrated head, "
     "`logits = h·Eᵀ/T + log p(v)`: E is the input embedding table, T the temperature of the "
     "objective and p the unigram distribution of the training text (counts plus one). It has no "
     "parameter of its own and is not trained."),
    ("nll", "Mean negative log-likelihood of the validation tokens under that head, in nats per "
     "token; perplexity is its exponential."),
    ("bits per byte", "nll divided by ln 2 and by the mean number of UTF-8 bytes that a validation "
     "token stands for. It is the one score that can be compared between tokenizers."),
    ("accuracy", "Share of validation tokens that the head ranks first."),
    ("bare head", "nll of the headless model under `logits = h·Eᵀ/T`, the tied head without "
     "log p(v): what a reader who reuses the weights the usual way would see."),
    ("time, speed", "Seconds of training alone: validation, checkpoints and the monitors' own time "
     "are left out. Speed is training tokens divided by it."),
    ("FLOPs", "Of forward and backward pass, counted from the shapes: a headless step scores its "
     "rows against the distinct targets of the batch, a vanilla one against the vocabulary."),
    ("memory", "Largest amount held during training: allocated on the GPU, or of the process where "
     "there is none (host)."),
    ("anisotropy", "Mean cosine over all pairs of hidden states of the probe batch, without "
     "position 0, whose vectors are nearly equal in many models; of the embedding table: over all "
     "pairs of rows. 0 is isotropic, 1 is a single direction."),
    ("effective rank", "Exponential of the entropy of the normalised singular values of the "
     "centred vectors (Roy and Vetterli, 2007), from 1 to the width."),
    ("± ", "95 % interval of the mean over seeds, Student's t with n − 1 degrees of freedom. "
     "Differences from the baseline are paired by seed where the seeds are the same."),
)  # fmt: skip


def build_page(
    groups: Sequence[Group], warnings: Sequence[str], output: Path, tuned: Sequence[Group] = ()
) -> Page:
    """The page of a comparison.

    Args:
        groups: what is compared.
        warnings: what is unfair about it.
        output: named in the command that makes it again.
        tuned: fine-tunings, for a section of their own.
    """
    runs = [run for group in groups for run in group.runs]
    labels = [group.label for group in groups]
    listed = " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))
    title = listed if len(groups) <= 3 else f"{len(groups)} recipes"
    page = Page(f"Comparison: {title}", _subtitle(groups, runs))
    if warnings:
        page.notes(warnings, "warning", "Read this before comparing")
    _results(page, groups)
    _curves(page, groups)
    add_zero_shot(page, groups)
    add_lm_heads(page, tuned)
    _geometry(page, groups)
    add_inside(page, groups, output)
    _samples(page, groups)
    _settings(page, groups)
    _method(page, [*groups, *tuned], output)
    return page


def _subtitle(groups: Sequence[Group], runs: Sequence[Run]) -> str:
    backbones = sorted(
        {str(run.summary["backbone"]) for run in runs if run.summary.get("backbone")}
    )
    tokens = estimate(run.value("tokens") for run in runs)
    parts = [
        f"{len(runs)} run{'s' * (len(runs) != 1)} of {len(groups)} "
        f"recipe{'s' * (len(groups) != 1)}",
        ", ".join(backbones),
        f"data: {', '.join(sorted({run.data for run in runs}))}",
        f"{compact(tokens.mean)} training tokens each" if tokens and same_budget(groups) else "",
    ]
    return " · ".join(part for part in parts if part)


def _results(page: Page, groups: Sequence[Group]) -> None:
    page.heading("Results")
    columns, rows = headline(groups)
    page.table(
        columns,
        rows,
        "The state at the end of training. Mean over runs, ± 95 % interval where a recipe was run "
        "with several seeds. Bold: the best mean, where budget and tokenizer are the same. Every "
        "score is computed on the validation text under the head that the objective implies; "
        "definitions are at the end.",
        wide=True,
    )
    limits = remarks(groups)
    if limits:
        page.notes(limits)
    if len(groups) > 1:
        columns, rows = relative(groups)
        page.table(
            columns,
            rows,
            f"Against the baseline, {baseline_of(groups).label}. Ratios of the means; differences "
            "of the scores. The last columns: the share of the baseline's budget after which the "
            "validation nll had fallen to the baseline's last value (below 1: sooner).",
            wide=True,
        )


def _curves(page: Page, groups: Sequence[Group]) -> None:
    figure = learning_curves(groups)
    bars = costs(groups)
    if figure is None and bars is None:
        return
    page.heading("Learning and cost")
    if figure is not None:
        page.figure(
            figure,
            "Validation nll under each objective's LM head (top) and each objective's own training "
            "loss (bottom) over tokens, training seconds and training FLOPs. The losses of "
            "different objectives have different meanings: compare the top row. Dashed: the "
            "headless model under the bare tied head. The first moments of training lie above "
            "the panels.",
            wide=True,
        )
    if bars is not None:
        page.figure(
            bars,
            "Speed, memory and computation. Whiskers: 95 % interval; dots: single runs.",
            wide=True,
        )


def _geometry(page: Page, groups: Sequence[Group]) -> None:
    figure = geometry(groups)
    if figure is None:
        return
    page.heading("Geometry")
    page.figure(
        figure,
        "Anisotropy and effective rank of the hidden states of a fixed probe batch from the "
        "validation text (position 0 left out), and of the input embedding table. Layer 0 is the "
        "input of the first layer; the last layer is taken after the final normalisation.",
        wide=True,
    )


def _samples(page: Page, groups: Sequence[Group]) -> None:
    prompts = list(dict.fromkeys(s["prompt"] for g in groups for s in g.first.samples))
    if not prompts:
        return
    page.heading("Samples")
    page.paragraph(
        "What the first run of each recipe wrote last, from the same prompt (grey) with the same "
        "random numbers. Samples show fluency at a glance; they measure nothing."
    )
    for prompt in prompts[:MAX_PROMPTS]:
        page.cards(_cards(groups, prompt))
    if len(prompts) > MAX_PROMPTS:
        with page.details(f"{len(prompts) - MAX_PROMPTS} more prompts"):
            for prompt in prompts[MAX_PROMPTS:]:
                page.cards(_cards(groups, prompt))


def _cards(groups: Sequence[Group], prompt: str) -> list[TextCard]:
    cards = []
    for group in groups:
        found = [sample for sample in group.first.samples if sample["prompt"] == prompt]
        if not found:
            continue
        tokens = found[-1].get("progress/tokens")
        title = group.label + (f", {compact(tokens)} tokens" if tokens else "")
        text = str(found[-1]["text"]).removeprefix(prompt)
        cards.append(TextCard(title, text, prompt, group.index))
    return cards


def _settings(page: Page, groups: Sequence[Group]) -> None:
    if len(groups) < 2:
        return
    page.heading("What differs between the configs")
    settings = differing_settings(groups)
    if not settings:
        page.paragraph("Nothing but seeds, names and places: the recipes differ in their data.")
        return
    page.table(
        [Column("setting", "", "left"), *(Column(g.label, "", "left") for g in groups)],
        [
            [Cell(key, code=True), *(Cell(text, code=True) for text in texts)]
            for key, texts in settings.items()
        ],
        "All settings of the resolved configs that are not the same, but for seeds, names and "
        "places. A dash: that objective has no such setting.",
    )


def _method(page: Page, groups: Sequence[Group], output: Path) -> None:
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
    page.table(columns, rows, "The runs. Wall clock counts everything, from start to end.")
    page.heading("To make it again", level=3)
    commands = [_command(run, again=True) for run in runs]
    parts = [shlex.quote(str(run.directory.path)) for run in runs]
    parts.append(f"--output {shlex.quote(str(output))} --overwrite true")
    commands.append(" \\\n    ".join(["headless compare", *parts]))
    page.code("\n".join(commands))
    with page.details("Commands as they were given, and versions"):
        page.code("\n".join(f"{run.name}: {_command(run)}" for run in runs))
        page.definitions(_versions(runs))
    page.heading("Definitions", level=3)
    page.definitions(DEFINITIONS)
    page.paragraph(f"Made by headless {headless.__version__} from the files of the runs alone.")


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
