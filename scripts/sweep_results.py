"""Tables, trend and figure of a sweep, from its sweep.json.

    python scripts/sweep_results.py SWEEP.json [--also OTHER.json ARM=NAME ...] \\
        [--score bits_per_byte] [--along AXIS] [--deciles] \\
        [--figure FILE.svg] [--copy FILE.json]

Each arm with what was tuned, its nats a token (or bits a byte, by which vocabularies compare, too)
and the difference from the baseline of its block, paired by seed, with 95 % intervals. Blocks are
the values of `within`, or of the axis that `--along` names. Where they are sizes, the differences
of all pairs of runs are fitted by least squares against log2 of the baseline's parameters: the
change for each doubling, with the interval of Student's t. `--deciles` adds each arm's nats by the
tokens' frequency, from its runs beside SWEEP.json. `--figure` draws the differences against size,
or where the blocks are vocabularies (4k, 16k_super) the scores themselves against those. `--copy`
writes what the tables were made from, for benchmarks/.
"""

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from headless.reports.statistics import Difference, Estimate, difference, estimate
from headless.runs.directory import RunDirectory

Row = dict[str, Any]
UNITS = {"nll": "nats a token", "bits_per_byte": "bits a byte"}
VOCABULARY = re.compile(r"(\d+)k(?:_(\w+))?")  # a block: 4k, 16k_super


def main() -> None:
    """Read, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path, help="a sweep.json")
    parser.add_argument("--figure", type=Path, help="draw them against size, or vocabulary")
    parser.add_argument("--deciles", action="store_true", help="nats by the tokens' frequency")
    parser.add_argument("--copy", type=Path, help="write the numbers, shortened")
    parser.add_argument(
        "--also",
        nargs="+",
        action="append",
        default=[],
        metavar="OTHER.json ARM=NAME",
        help="arms of another sweep on the same data, under the names that they have here",
    )
    parser.add_argument("--score", choices=UNITS, default="nll", help="what is compared")
    parser.add_argument("--along", help="the last axis of `vary`, whose values are the blocks")
    options = parser.parse_args()
    sweep = json.loads(options.sweep.read_text())
    for path, *names in options.also:
        join(sweep, json.loads(Path(path).read_text()), dict(name.split("=") for name in names))
    sweep["config"]["within"] = options.along or sweep["config"]["within"]
    written: dict[str, Any] = {"budgets": {}, "trends": {}}
    for budget in sweep["config"]["budgets"]:
        rows = read_rows(sweep, budget, options.score)
        trends = read_trends(rows)
        print(f"\n{budget.replace('_', ' ')}\n\n{table(rows, UNITS[options.score])}\n")
        for kind, found in trends.items():
            print(f"{kind}: {words(found, UNITS[options.score])}")
        if options.deciles:
            print(table_of_deciles(add_deciles(rows, options.sweep.parent)))
        written["budgets"][budget], written["trends"][budget] = rows, trends
    if options.figure:
        are_vocabularies = all(
            VOCABULARY.fullmatch(row["block"])
            for rows in written["budgets"].values()
            for row in rows
        )
        paint = draw_scores if are_vocabularies else draw
        paint(written["budgets"], options.figure, UNITS[options.score])
    if options.copy:
        kept = {"score": f"nll: {UNITS[options.score]}, the last validation"}
        kept |= {k: sweep[k] for k in ("baseline", "core_hours", "config", "environment")}
        text = json.dumps(kept | written, indent=1, default=plain)
        options.copy.write_text(text + "\n")


def plain(value: Estimate) -> Row:
    """An estimate as JSON."""
    return {k: getattr(value, k) for k in ("mean", "half_width", "n")} | (
        {"p": value.p, "by_seed": value.by_seed} if isinstance(value, Difference) else {}
    )


def join(sweep: Row, other: Row, names: dict[str, str]) -> None:
    """Put arms of another sweep into this one, before its own."""
    joined = {new: other["arms"][old] for old, new in names.items()}
    for arm in joined.values():
        arm["budgets"] = {
            budget: arm["budgets"].get(budget, {"nll_by_seed": {}})
            for budget in sweep["config"]["budgets"]
        }
    sweep["arms"] = joined | sweep["arms"]
    sweep["core_hours"] += sum(arm["core_hours"] for arm in joined.values())


def read_rows(sweep: Row, budget: str, score: str = "nll") -> list[Row]:
    """The arms, each with its score by seed and its difference from the baseline of its block."""
    blocks = sweep["config"]["within"]
    rows = []
    for name, arm in sweep["arms"].items():
        block = name.rsplit("-", 1)[-1] if blocks else ""  # the axes of a sweep end with its blocks
        found = arm["budgets"][budget]
        nll = {int(seed): nats for seed, nats in found.get(f"{score}_by_seed", {}).items()}
        if nll:
            kind = name.removesuffix(block).rstrip("-")
            rows.append(
                {
                    "arm": name,
                    "block": block,
                    "kind": kind,
                    "parameters": arm["parameters"],
                    "steps": found["steps"],
                    "tokens": found["tokens"],
                    "tuned": {k.rsplit(".", 1)[-1]: v for k, v in (arm["tuned"] or {}).items()},
                    "notes": arm["notes"],
                    "seconds_per_step": arm["seconds_per_step"],
                    "runs": found.get("runs", []),
                    "nll_by_seed": nll,
                    "nll": estimate(nll.values()),
                }
            )
    baseline = sweep["baseline"]
    kind = next((row["kind"] for row in rows if row["arm"] == baseline), baseline)
    for row in rows:
        others = [o for o in rows if o["block"] == row["block"] and o["kind"] == kind]
        is_own = not others or others[0] is row
        row["parameters_baseline"] = others[0]["parameters"] if others else None
        row["difference"] = (
            None if is_own else difference(row["nll_by_seed"], others[0]["nll_by_seed"])
        )
    return rows


def add_deciles(rows: list[Row], directory: Path) -> list[Row]:
    """The mean nats of each decile over an arm's runs, where they are there."""
    for row in rows:
        summaries = (RunDirectory(directory / place).read_summary() for place in row["runs"])
        last = [found["last"] for found in summaries if found]
        known = [[one.get(f"val/nll_decile_{k}", math.nan) for k in range(10)] for one in last]
        row["nll_deciles"] = [sum(values) / len(values) for values in zip(*known, strict=True)]
    return rows


def table_of_deciles(rows: Sequence[Row]) -> str:
    """Markdown; decile 0 are the most frequent tokens, which make up a tenth of the text."""
    lines = [f"| arm | {' | '.join(map(str, range(10)))} |", f"| --- |{' ---: |' * 10}"]
    for row in sorted(rows, key=lambda row: row["parameters_baseline"] or 0):
        nats = [f"{value:.3f}" for value in row["nll_deciles"]]
        lines += [f"| {row['arm']} | {' | '.join(nats)} |"] if nats else []
    return "\n".join(lines)


def read_trends(rows: list[Row]) -> dict[str, Row]:
    """How each kind's difference from the baseline changes with size, where there are three."""
    trends: dict[str, Row] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        points = [
            (math.log2(row["parameters_baseline"]), nats)
            for row in rows
            if row["kind"] == kind and row["difference"] is not None
            for nats in row["difference"].by_seed.values()
        ]
        if len({x for x, _ in points}) >= 3:
            fit = stats.linregress(*zip(*points, strict=True))
            t = stats.t.ppf(0.975, len(points) - 2)
            trends[kind] = {
                "nats_per_doubling": fit.slope,
                "half_width": t * fit.stderr,
                "p": fit.pvalue,
                "pairs": len(points),
            }
    return trends


def words(trend: Row, unit: str) -> str:
    """A trend in words."""
    slope, half = trend["nats_per_doubling"], trend["half_width"]
    return (
        f"{slope:+.4f} ± {half:.4f} {unit} for each doubling of the parameters "
        f"(p {trend['p']:.2g}, {trend['pairs']} pairs)"
    )


def table(rows: list[Row], unit: str) -> str:
    """Markdown."""
    lines = [
        f"| arm | parameters | tuned | steps | seeds | {unit} | against the baseline | p |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(rows, key=lambda row: (row["parameters_baseline"] or 0, row["nll"].mean)):
        tuned = ", ".join(f"{k} {v:g}" for k, v in row["tuned"].items())
        found, p = row["difference"], ""
        if found is not None and found.p is not None:
            p = f"{found.p:.2g}"
        against = "" if found is None else interval(found, "+")
        cells = (
            row["arm"],
            f"{row['parameters'] / 1e6:.3f} M",
            tuned,
            f"{row['steps']:,}",
            str(row["nll"].n),
            interval(row["nll"]),
            against,
            p,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(number: Estimate, sign: str = "") -> str:
    """A mean with its interval where there is one."""
    half = "" if number.half_width is None else f" ± {number.half_width:.3f}"
    return f"{number.mean:{sign}.3f}{half}"


def draw(budgets: dict[str, list[Row]], path: Path, unit: str) -> None:
    """Differences from the baseline against its parameters, a panel for each budget."""
    _draw(budgets, path, f"{unit} against the baseline", _differences)


def draw_scores(budgets: dict[str, list[Row]], path: Path, unit: str) -> None:
    """Scores against the size of the vocabulary, a panel for each budget; variants are dashed."""
    _draw(budgets, path, unit, _scores)


def _draw(
    budgets: dict[str, list[Row]], path: Path, label: str, paint: Callable[[Any, list[Row]], None]
) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(budgets), figsize=(4.6 * len(budgets), 3.4), sharey=True, squeeze=False
    )
    for axis, (budget, rows) in zip(axes[0], budgets.items(), strict=True):
        paint(axis, rows)
        axis.set_title(budget.replace("_", " "))
        axis.minorticks_off()
    axes[0][0].set_ylabel(label)
    axes[0][-1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _differences(axis: Any, rows: list[Row]) -> None:
    axis.axhline(0, color="0.6", linewidth=1)
    for kind in dict.fromkeys(row["kind"] for row in rows if row["difference"] is not None):
        own = [row for row in rows if row["kind"] == kind and row["difference"] is not None]
        own.sort(key=lambda row: row["parameters_baseline"])
        x = [row["parameters_baseline"] / 1e6 for row in own]
        y = [row["difference"].mean for row in own]
        halves = [row["difference"].half_width or 0.0 for row in own]
        (line,) = axis.plot(x, y, marker="o", markersize=4, label=kind)
        axis.errorbar(x, y, halves, fmt="none", color=line.get_color(), capsize=3)
    axis.set(xscale="log", xlabel="parameters of the baseline, millions")
    axis.set_xticks(sorted({row["parameters_baseline"] / 1e6 for row in rows}))
    axis.xaxis.set_major_formatter("{x:.2f}")


def _scores(axis: Any, rows: list[Row]) -> None:
    places = [VOCABULARY.fullmatch(row["block"]).groups() for row in rows]  # type: ignore[union-attr]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    lines: dict[tuple[str, str], list[tuple[int, Estimate]]] = {}
    for row, (size, variant) in zip(rows, places, strict=True):
        lines.setdefault((row["kind"], variant or ""), []).append((int(size), row["nll"]))
    for (kind, variant), points in lines.items():
        x, found = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        color, style = f"C{kinds.index(kind)}", "--" if variant else "-"
        name = " ".join(filter(None, (kind, variant)))
        y = [one.mean for one in found]
        axis.plot(x, y, style, marker="o", markersize=4, color=color, label=name)
    ticks = sorted({int(size) for size, _ in places})
    axis.set(xscale="log", xlabel="tokens of the vocabulary")
    axis.set_xticks(ticks, [f"{tick}k" for tick in ticks])


if __name__ == "__main__":
    main()
