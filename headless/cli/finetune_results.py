"""What `headless finetune` says of its scores: results.json and a table."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headless.downstream.classification.run import Finetuning


def results(
    finetuning: "Finetuning", records: list[dict[str, Any]], options: dict[str, Any]
) -> dict[str, Any]:
    """What results.json holds."""
    from headless.reports.statistics import estimate
    from headless.runs.environment import describe_environment

    summary: dict[str, Any] = {}
    for split in records[0]["scores"]:
        for metric in finetuning.metrics:
            found = estimate(record["scores"][split][metric] for record in records)
            summary.setdefault(split, {})[metric] = found and {
                "mean": found.mean,
                "interval_95": found.half_width,
                "n": found.n,
            }
    facts = finetuning.facts()
    facts["notes"] += above_the_baseline(facts, summary)
    return {
        "model": finetuning.encoder.name,
        "task": finetuning.task.name,
        "mode": options["mode"],
        **facts,
        "seeds": records,
        "summary": summary,
        "environment": describe_environment(),
    }


def above_the_baseline(facts: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """A note where the reported score may be had without reading the texts; else nothing.

    The interval is the seeds' or, where it is wider, that of as many guesses as there are examples
    that are right as often as the baseline: no narrower where all of a few are right. Where the
    classes are uneven, a classifier that tells them apart may yet guess the largest one too seldom:
    Matthews' correlation, which is 0 for one that does not, then speaks for it.
    """
    split, (metric, chance) = facts["reported_split"], next(iter(facts["baseline"].items()))
    scores, n = summary[split], facts["splits"][split]["examples"]
    value = scores[metric]["mean"]
    spread = scores[metric]["interval_95"] or 0.0
    if metric == "rmse":
        learnt = value + spread < chance
        what = "the mean of the training labels"
    else:
        deviation = 1.96 / math.sqrt(n)
        spread = max(spread, deviation * math.sqrt(chance * (1 - chance)))
        learnt = value - spread > chance or scores["matthews"]["mean"] > deviation
        what = "the most frequent class of the training text"
    if learnt:
        return []
    return [
        f"{split} {metric} {value:.4f} ± {spread:.4f} is not better than the baseline's "
        f"{chance:.4f} ({what}): the model may have learnt nothing; try another rate than --lr "
        f"{facts['lr']:g}, or more than --epochs {facts['epochs']}"
    ]


def show(found: dict[str, Any], output: Path) -> None:
    """Print the table of scores and the notes."""
    from rich.console import Console
    from rich.table import Table

    title = f"{found['model']}, {found['task']}, {found['mode']}, {len(found['seeds'])} seed(s)"
    table = Table("split", "examples", *found["metrics"], title=title)
    rows = {**found["summary"], "baseline": {k: {"mean": v} for k, v in found["baseline"].items()}}
    for split, values in rows.items():
        count = found["splits"].get(split, {}).get("examples")
        cells = []
        for metric in found["metrics"]:
            value = values.get(metric)
            half = value and value.get("interval_95")
            shown = "" if value is None else f"{value['mean']:.4f}"
            cells.append(shown if half is None else f"{shown} ± {half:.4f}")
        table.add_row(split, "" if count is None else f"{count:,}", *cells)
    console = Console()
    console.print(table)
    if any(found["truncated"].values()):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in found["truncated"].items())
        print(f"cut to {found['max_length']} tokens: {shares}")
    for note in found["notes"]:
        print(f"note: {note}")
    print(f"output directory: {output}")
