"""Collapse, expansion, compression: the phases of every run of a sweep that looked at log steps.

    python scripts/phases.py SWEEP [SWEEP ...] [--output FILE.json] [--figure FILE.svg]

SWEEP is a sweep's directory whose runs were looked into while they trained (`laboratory:
{enabled: true, every_n_steps: log}`), as those of configs/sweep/ladder.yaml. One row an arm: the
factors by which RankMe of the last states falls, rises and falls again (Li et al. 2025, arXiv
2509.23024; `headless analyze --analyses phases` gives them for one run), and in how many of the
seeds there is such a phase: a factor of 1.1 or more, for the rise also one that 95 % of the random
orders of the same steps do not have. The figure shows the courses, a line a seed.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
from benchmarking import write
from sweep_runs import finished_runs

from headless.analysis.course.phases import COURSES, criteria_of, phases
from headless.analysis.courses import Courses, logged

PHASES = {"collapse": "falls by", "expansion": "rises by", "compression": "falls again by"}
LAST = "norm_f"  # what the head reads
NAMES = {"ce": "softmax", "cwt": "headless"}


def read(sweep: Path) -> dict[str, dict[str, Courses]]:
    """What finished runs logged, by arm and seed."""
    found: dict[str, dict[str, Courses]] = defaultdict(dict)
    for arm, seed, run in finished_runs(sweep):
        found[arm][seed] = logged(run)
    return dict(found)


def of_run(courses: Courses) -> dict[str, Any]:
    """The courses at the last states, the phases of their RankMe, and which there are."""
    lab: Any = SimpleNamespace(courses=courses, seed=0)
    finding: Any = phases(lab)
    numbers = {
        key.rsplit("/", 1)[-1]: x for key, x in finding.scalars.items() if f"/{LAST}/" in key
    }
    there = {phase: one.verdict(finding) for phase, one in criteria_of("rankme").items()}
    course = {
        name: next(x.tolist() for x in courses.places(f, m, LAST).values())
        for name, (f, m, _) in COURSES.items()
    }
    return {"steps": courses.steps_S.tolist(), **course, "phases": numbers, "there": there}


def table(arms: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        f"| arm | RankMe at the end | {' | '.join(PHASES.values())} | seeds with each |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm, runs in arms.items():
        numbers = [run["phases"] for run in runs.values()]
        factors = [f"{mean(n[f'rankme_{phase}'] for n in numbers):.2f}" for phase in PHASES]
        seeds = ", ".join(
            str(sum(run["there"][phase] for run in runs.values())) for phase in PHASES
        )
        end = f"{mean(run['rankme'][-1] for run in runs.values()):.1f}"
        lines.append(f"| {' | '.join([arm, end, *factors, f'{seeds} of {len(runs)}'])} |")
    return "\n".join(lines)


def draw(arms: dict[str, dict[str, Any]], path: Path) -> None:
    """RankMe over steps: a panel for each size, a colour for each form."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    sizes = list(dict.fromkeys(arm.rsplit("-", 1)[-1] for arm in arms))
    forms = list(dict.fromkeys(arm.rsplit("-", 1)[0] for arm in arms))
    figure, axes = plt.subplots(1, len(sizes), figsize=(4.2 * len(sizes), 3.2), squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        for color, form in enumerate(forms):
            for index, run in enumerate(arms.get(f"{form}-{size}", {}).values()):
                steps = np.maximum(run["steps"], 0.5)  # step 0 has a place, too
                label = NAMES.get(form, form) if index == 0 else None
                axis.plot(steps, run["rankme"], color=f"C{color}", lw=1.2, alpha=0.8, label=label)
        title = size.replace("m", " M parameters")
        axis.set(xscale="log", yscale="log", xlabel="optimizer steps", title=title)
        for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            formatter("{x:.0f}")
    axes[0][0].set_ylabel("RankMe of the last states")
    axes[0][-1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sweeps", type=Path, nargs="+", metavar="SWEEP")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/phases.json"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    arms = {
        arm: {seed: of_run(courses) for seed, courses in runs.items()}
        for sweep in options.sweeps
        for arm, runs in read(sweep).items()
    }
    if not arms:
        parser.error("none of these sweeps has a finished run")
    print(table(arms))
    write(options.output, {"arms": arms})
    if options.figure:
        draw(arms, options.figure)


if __name__ == "__main__":
    main()
