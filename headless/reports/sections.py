"""The sections of the comparison's page, in the order in which they are read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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
from headless.reports.tables import Table

MAX_COLUMNS = 13  # that a page is wide enough for
MAX_PROMPTS = 4  # shown open; more are folded away
RESULTS = (
    "The state at the end of training. Mean over runs, ± 95 % interval where a recipe was run with "
    "several seeds. Bold: better than every other by more than chance, that is, the interval of "
    "the difference over seeds leaves zero out; nothing is where a recipe has one seed, or where "
    "budget, data, tokenizer or (for costs) hardware differ. Every score is computed on the "
    "validation text under the head that the objective implies; definitions are at the end."
)
CURVES = (
    "Validation nll under each objective's LM head (top) and each objective's own training loss "
    "(bottom) over tokens, training seconds and training FLOPs. The losses of different objectives "
    "have different meanings: compare the top row. Dashed: the headless model under the bare tied "
    "head. The first moments of training lie above the panels."
)
GEOMETRY = (
    "Anisotropy and effective rank of the hidden states of a fixed probe batch from the validation "
    "text (position 0 left out), and of the input embedding table. Layer 0 is the input of the "
    "first layer; the last layer is taken after the final normalisation."
)


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
        _curves(page, groups)
        add_zero_shot(page, groups)
    add_finetunings(page, compared.finetunings)
    add_lm_heads(page, compared.tuned)
    if groups:
        _geometry(page, groups)
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
    parts = {RESULTS: table}
    if len(table.quantities) >= MAX_COLUMNS:
        cost, scores = (
            replace(table, quantities=[q for q in table.quantities if (q.group == COST) == is_cost])
            for is_cost in (True, False)
        )
        parts = {RESULTS: scores, "What it cost.": cost}
    for caption, part in parts.items():
        page.table(*part.cells(), caption, wide=True)
    if limits := [*inexact(groups), *remarks(groups)]:
        page.notes(limits)
    if len(groups) > 1:
        page.table(
            *relative(groups, baseline),
            f"Against the baseline, {baseline.label}. Ratios of the means; differences "
            "of the scores. The last columns: the share of the baseline's budget after which the "
            "validation nll had fallen to the baseline's last value (below 1: sooner).",
            wide=True,
        )


def _curves(page: Page, groups: Sequence[Group]) -> None:
    bars = "Speed, memory and computation. Whiskers: 95 % interval; dots: single runs."
    figures = {CURVES: learning_curves(groups), bars: costs(groups)}
    figures = {caption: figure for caption, figure in figures.items() if figure is not None}
    if figures:
        page.heading("Learning and cost")
    for caption, figure in figures.items():
        page.figure(figure, caption, wide=True)


def _geometry(page: Page, groups: Sequence[Group]) -> None:
    figure = geometry(groups)
    if figure is None:
        return
    page.heading("Geometry")
    noise = "; ".join(f"{n:,} vectors, Gaussian ones: {r:.0f}" for n, r in noise_ranks(groups))
    sample = f" What the sample can show of the effective rank: {noise}." if noise else ""
    page.figure(figure, GEOMETRY + sample, wide=True)


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
        page.paragraph(
            f"Nothing but seeds, names and places: the recipes differ in their data.{also}"
        )
        return
    page.table(
        [Column("setting", "", "left"), *(Column(g.label, "", "left") for g in groups)],
        [
            [Cell(key, code=True), *(Cell(text, code=True) for text in texts)]
            for key, texts in settings.items()
        ],
        "All settings of the resolved configs that are not the same, but for seeds, names, places "
        f"and what only observes. A dash: that objective has no such setting.{also}",
    )
