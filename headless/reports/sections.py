"""The sections of the comparison's page, in the order in which they are read."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import headless
from headless.pages.numbers import MISSING, compact, decimals
from headless.pages.page import Cell, Column, Page, TextCard
from headless.reports.curves import deciles, equal_loss, geometry, learning_curves
from headless.reports.evaluations import add_zero_shot
from headless.reports.fairness import inexact, remarks, same_budget
from headless.reports.finetunings import Finetuning, add_finetunings, task_tables
from headless.reports.groups import Group, differing_settings, observing_differences, runs_of
from headless.reports.headline import (
    COST,
    anchor_table,
    baseline_of,
    decile_differences,
    decile_table,
    headline,
    relative,
)
from headless.reports.inside import add_inside
from headless.reports.lm_heads import add_lm_heads
from headless.reports.statistics import estimate
from headless.reports.tables import Sheet
from headless.reports.texts import TEXTS
from headless.runs.directory import RunDirectory
from headless.runs.run import Run

NOT_KNOWN = "not known"
LEFT = ("run", "hardware", "code")  # aligned columns of the table of runs


@dataclass
class Compared:
    """Groups of runs, and what is beside them."""

    groups: list[Group]
    warnings: list[str] = field(default_factory=list)  # what is unfair about the comparison
    tuned: list[Group] = field(default_factory=list)  # from a trained model, where others are not
    finetunings: list[Finetuning] = field(default_factory=list)
    baseline: Group | None = None  # what the other groups are measured against
    left_out: list[str] = field(default_factory=list)  # sentences on what folders hold besides


def sheets_of(compared: Compared) -> list[tuple[str, Sheet]]:
    """The tables, with titles, that stand for a comparison where there is no page: recipes, their
    differences from the baseline, classifiers."""
    groups, baseline = compared.groups, compared.baseline
    sheets = [("", headline(groups).cells())] if groups else []
    if baseline is not None and len(groups) > 1:
        sheets.append((f"Against {baseline.label}", relative(groups, baseline)))
    tables = [task.table() for task in task_tables(compared.finetunings)]
    return sheets + [(table.title, table.cells()) for table in tables]


def build_page(compared: Compared, output: Path) -> Page:
    """The page of a comparison that will stand in a directory."""
    groups, baseline = compared.groups, compared.baseline
    page = Page(f"Comparison: {_title(compared)}", _subtitle(groups) if groups else "")
    if compared.warnings:
        page.notes(compared.warnings, "warning", "Read this before comparing")
    if baseline is not None:
        _results(page, groups, baseline)
        _learning(page, groups, baseline)
        add_zero_shot(page, groups)
    add_finetunings(page, compared.finetunings)
    add_lm_heads(page, compared.tuned)
    if groups:
        _figures(page, "Geometry", {TEXTS["geometry"]: geometry(groups)})
        add_inside(page, groups, output)
        _samples(page, groups)
        _settings(page, groups)
    _method(page, compared, output)
    return page


def _title(compared: Compared) -> str:
    models = list(dict.fromkeys(one.model for one in compared.finetunings))
    labels = [group.label for group in compared.groups] or models
    if len(labels) > 3:
        return f"{len(labels)} {'recipes' if compared.groups else 'fine-tuned models'}"
    return ", ".join(labels) + ("" if compared.groups else ", fine-tuned")


def _subtitle(groups: Sequence[Group]) -> str:
    runs = runs_of(groups)
    backbones = sorted({str(r.summary["backbone"]) for r in runs if r.summary.get("backbone")})
    tokens = estimate(run.value("tokens") for run in runs)
    recipes = f"{len(groups)} recipe{'s' * (len(groups) != 1)}"
    parts = [
        f"{len(runs)} run{'s' * (len(runs) != 1)} of {recipes}",
        ", ".join(backbones),
        f"data: {', '.join(sorted({run.data for run in runs}))}",
        f"{compact(tokens.mean)} training tokens each" if tokens and same_budget(groups) else "",
    ]
    return " · ".join(part for part in parts if part)


def _results(page: Page, groups: Sequence[Group], baseline: Group) -> None:
    page.heading("Results")
    table = headline(groups)
    for name in ("results", "cost"):
        part = [q for q in table.quantities if (q.group == COST) == (name == "cost")]
        page.table(*replace(table, quantities=part).cells(), TEXTS[name], wide=True)
    if limits := [*inexact(groups), *remarks(groups)]:
        page.notes(limits)
    if len(groups) > 1:
        caption = TEXTS["relative"].format(baseline=baseline.label)
        page.table(*relative(groups, baseline), caption, wide=True)
    if (anchors := anchor_table(groups)) is not None:
        page.table(*anchors.cells(), TEXTS["anchors"])


def _learning(page: Page, groups: Sequence[Group], baseline: Group) -> None:
    """Figures over training, and the loss by frequency."""
    against = {name: TEXTS[name].format(baseline=baseline.label)
               for name in ("equal_loss", "deciles", "decile_differences")}  # fmt: skip
    figures = {
        TEXTS["learning_curves"]: learning_curves(groups),
        against["equal_loss"]: equal_loss(groups, baseline),
    }
    _figures(page, "Learning", figures)
    if (table := decile_table(groups)) is not None:
        _figures(page, "Loss by frequency", {against["deciles"]: deciles(groups, baseline)})
        page.table(*table.cells(), TEXTS["decile_table"], wide=True)
        if len(groups) > 1:
            differences = decile_differences(groups, baseline)
            page.table(*differences, against["decile_differences"], wide=True)


def _figures(page: Page, heading: str, figures: Mapping[str, Any]) -> None:
    """What was drawn, by caption, below a heading."""
    drawn = {caption: figure for caption, figure in figures.items() if figure is not None}
    if drawn:
        page.heading(heading)
    for caption, figure in drawn.items():
        page.figure(figure, caption, wide=True)


def _samples(page: Page, groups: Sequence[Group]) -> None:
    """What the first run of each group wrote last, from each prompt."""
    last = [{sample["prompt"]: sample for sample in group.first.samples} for group in groups]
    prompts = dict.fromkeys(prompt for own in last for prompt in own)
    if prompts:
        page.heading("Samples")
        page.paragraph(TEXTS["samples"])
    for prompt in prompts:
        cards = []
        for group, own in zip(groups, last, strict=True):
            if sample := own.get(prompt):
                tokens = sample.get("progress/tokens")
                title = group.label + (f", {compact(tokens)} tokens" if tokens else "")
                text = sample["text"].removeprefix(prompt)
                cards.append(TextCard(title, text, prompt, group.index))
        page.cards(cards)


def _settings(page: Page, groups: Sequence[Group]) -> None:
    if len(groups) < 2:
        return
    page.heading("What differs between the configs")
    settings = differing_settings(groups)
    observing = ", ".join(f"`{key}`" for key in observing_differences(groups))
    also = f" Not the same either, but these only observe: {observing}." if observing else ""
    if not settings:
        page.paragraph(TEXTS["same_settings"] + also)
        return
    columns = [Column("setting", "", "left"), *(Column(g.label, "", "left") for g in groups)]
    coded = [[Cell(text, code=True) for text in (key, *texts)] for key, texts in settings.items()]
    page.table(columns, coded, TEXTS["settings"] + also)


def _method(page: Page, compared: Compared, output: Path) -> None:
    """The runs, the commands that make the page again, and what the words mean."""
    groups = [*compared.groups, *compared.tuned]
    runs = runs_of(groups)
    page.heading("How this was made")
    if runs:
        rows = [_run(run, group) for group in groups for run in group.runs]
        columns = [Column(name, "", "left" if name in LEFT else "right") for name in rows[0]]
        page.table(columns, [list(row.values()) for row in rows], TEXTS["runs"])
    if compared.left_out:
        page.notes(compared.left_out, title="Left out")
    page.heading("To make it again", level=3)
    page.code("\n".join(_commands(compared, runs, output)))
    if runs:
        with page.details("Versions"):
            packages = [r.environment.get("packages") or {} for r in runs]
            names = dict.fromkeys(name for own in packages for name in own)
            several = {n: sorted({str(own[n]) for own in packages if n in own}) for n in names}
            page.definitions([(name, ", ".join(found)) for name, found in several.items()])
        page.heading("Definitions", level=3)
        page.definitions(list(TEXTS["definitions"].items()))
    page.paragraph(f"Made by headless {headless.__version__} from the files named above alone.")


def _run(run: Run, group: Group) -> dict[str, Cell | str]:
    """A run's row of the table of runs."""
    environment = run.environment
    gpus = [str(name) for name in environment.get("gpus") or []]
    cores = f", {environment['cores']} cores" if environment.get("cores") else ""
    processor = str(environment.get("cpu") or NOT_KNOWN) + cores
    cards = ", ".join(f"{gpus.count(name)} × {name}" for name in sorted(set(gpus)))
    commit = str(environment.get("commit") or "")[:10]
    changed = ", modified" if commit and environment.get("dirty") else ""
    return {
        "run": Cell(run.name, "" if run.finished else "not finished", swatch=group.index),
        "seed": MISSING if run.seed is None else str(run.seed),
        "steps": decimals(run.value("step"), 0),
        "wall clock, s": decimals(run.summary.get("wall_seconds"), 0),
        "hardware": Cell(cards, processor) if cards else processor,
        "code": Cell(str(environment.get("headless") or NOT_KNOWN), commit + changed),
    }


def _commands(compared: Compared, runs: Sequence[Run], output: Path) -> list[str]:
    """The runs, the fine-tunings and the comparison, as one would call them."""
    tuned = [one.path for one in compared.finetunings]
    starts = [("pretrain", run.directory.config, "--run.name", run.name) for run in runs]
    starts += [("finetune", RunDirectory(path).config, "--output", str(path)) for path in tuned]
    commands = [
        shlex.join(["headless", verb, "--config", str(config), option, f"{name}-again"])
        for verb, config, option, name in starts
    ]
    parts = [shlex.quote(str(place)) for place in (*(run.directory.path for run in runs), *tuned)]
    if compared.baseline and compared.baseline is not baseline_of(compared.groups):
        parts.append(f"--baseline {shlex.quote(compared.baseline.label)}")
    parts.append(f"--output {shlex.quote(str(output))} --overwrite true")
    return [*commands, " \\\n    ".join(["headless compare", *parts])]
