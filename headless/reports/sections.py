"""The sections of the comparison's page, in the order in which they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headless.pages.numbers import compact
from headless.pages.page import Cell, Column, Page, TextCard
from headless.reports.comparison import Compared
from headless.reports.evaluations import add_zero_shot
from headless.reports.fairness import inexact, remarks, same_budget
from headless.reports.finetunings import add_finetunings, task_tables
from headless.reports.groups import Group, differing_settings, observing_differences, runs_of
from headless.reports.headline import COST, baseline_of, headline, noise_ranks, relative
from headless.reports.inside import add_inside
from headless.reports.lm_heads import add_lm_heads
from headless.reports.method import add_method
from headless.reports.plots import costs, geometry, learning_curves
from headless.reports.statistics import estimate
from headless.reports.tables import Quantity, Table
from headless.reports.texts import TEXTS

MAX_COLUMNS = 13  # that a page is wide enough for
MAX_PROMPTS = 4  # shown open; more are folded away


def tables_of(compared: Compared) -> list[Table]:
    """The tables that stand for a comparison where there is no page: recipes, then classifiers."""
    recipes = [headline(compared.groups)] if compared.groups else []
    return recipes + [task.table() for task in task_tables(compared.finetunings)]


def build_page(compared: Compared, output: Path) -> Page:
    """The page of a comparison that will stand in a directory."""
    groups = compared.groups
    page = Page(f"Comparison: {_title(compared)}", _subtitle(groups) if groups else "")
    if compared.warnings:
        page.notes(compared.warnings, "warning", "Read this before comparing")
    if groups:
        _results(page, groups, compared.baseline or baseline_of(groups))
        curves = {TEXTS["learning_curves"]: learning_curves(groups), TEXTS["costs"]: costs(groups)}
        _figures(page, "Learning and cost", curves)
        add_zero_shot(page, groups)
    add_finetunings(page, compared.finetunings)
    add_lm_heads(page, compared.tuned)
    if groups:
        _figures(page, "Geometry", {_geometry_caption(groups): geometry(groups)})
        add_inside(page, groups, output)
        _samples(page, groups)
        _settings(page, groups)
    add_method(page, compared, output)
    return page


def _title(compared: Compared) -> str:
    labels = [group.label for group in compared.groups]
    kind = "recipes"
    if not labels:
        kind = "fine-tuned models"
        labels = list(dict.fromkeys(one.model for one in compared.finetunings))
    if len(labels) > 3:
        return f"{len(labels)} {kind}"
    listed = " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))
    return listed if compared.groups else f"{listed}, fine-tuned"


def _subtitle(groups: Sequence[Group]) -> str:
    runs = runs_of(groups)
    backbones = sorted({str(r.summary["backbone"]) for r in runs if r.summary.get("backbone")})
    tokens = estimate(run.value("tokens") for run in runs)
    parts = [
        f"{len(runs)} run{'s' * (len(runs) != 1)} of {len(groups)} "
        f"recipe{'s' * (len(groups) != 1)}",
        ", ".join(backbones),
        f"data: {', '.join(sorted({run.data for run in runs}))}",
        f"{compact(tokens.mean)} training tokens each" if tokens and same_budget(groups) else "",
    ]
    return " · ".join(part for part in parts if part)


def _results(page: Page, groups: Sequence[Group], baseline: Group) -> None:
    page.heading("Results")
    table = headline(groups)
    parts = {"results": table}
    if len(table.quantities) >= MAX_COLUMNS:
        columns: dict[bool, list[Quantity]] = {False: [], True: []}
        for quantity in table.quantities:
            columns[quantity.group == COST].append(quantity)
        parts = {
            "results": replace(table, quantities=columns[False]),
            "cost": replace(table, quantities=columns[True]),
        }
    for name, part in parts.items():
        page.table(*part.cells(), TEXTS[name], wide=True)
    if limits := [*inexact(groups), *remarks(groups)]:
        page.notes(limits)
    if len(groups) > 1:
        caption = TEXTS["relative"].format(baseline=baseline.label)
        page.table(*relative(groups, baseline), caption, wide=True)


def _figures(page: Page, heading: str, figures: Mapping[str, Any]) -> None:
    """What was drawn, by caption, below a heading."""
    drawn = {caption: figure for caption, figure in figures.items() if figure is not None}
    if drawn:
        page.heading(heading)
    for caption, figure in drawn.items():
        page.figure(figure, caption, wide=True)


def _geometry_caption(groups: Sequence[Group]) -> str:
    noise = "; ".join(f"{n:,} vectors, Gaussian ones: {r:.0f}" for n, r in noise_ranks(groups))
    sample = f" What the sample can show of the effective rank: {noise}." if noise else ""
    return TEXTS["geometry"] + sample


def _samples(page: Page, groups: Sequence[Group]) -> None:
    prompts = list(dict.fromkeys(s["prompt"] for g in groups for s in g.first.samples))
    if not prompts:
        return
    page.heading("Samples")
    page.paragraph(TEXTS["samples"])
    for prompt in prompts[:MAX_PROMPTS]:
        page.cards(_cards(groups, prompt))
    if len(prompts) > MAX_PROMPTS:
        with page.details(f"{len(prompts) - MAX_PROMPTS} more prompts"):
            for prompt in prompts[MAX_PROMPTS:]:
                page.cards(_cards(groups, prompt))


def _cards(groups: Sequence[Group], prompt: str) -> list[TextCard]:
    cards = []
    for group in groups:
        samples = [sample for sample in group.first.samples if sample["prompt"] == prompt]
        if samples:
            tokens = samples[-1].get("progress/tokens")
            title = group.label + (f", {compact(tokens)} tokens" if tokens else "")
            text = str(samples[-1]["text"]).removeprefix(prompt)
            cards.append(TextCard(title, text, prompt, group.index))
    return cards


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
    rows = [[key, *texts] for key, texts in settings.items()]
    coded = [[Cell(text, code=True) for text in row] for row in rows]
    page.table(columns, coded, TEXTS["settings"] + also)
