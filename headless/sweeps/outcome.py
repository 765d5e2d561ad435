"""What a sweep has come to so far: a row an arm, `sweep.json`, and the pages of `compare`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import headless
from headless.errors import HeadlessError
from headless.files import exclusive, write_json
from headless.runs.directory import RunDirectory
from headless.runs.environment import describe_environment
from headless.sweeps.config import SweepConfig
from headless.sweeps.plan import Arm, Job, Plan, Result, make_plan, read_arms
from headless.sweeps.queue import JOURNAL, Queue

SWEEP = "sweep.json"
WAIT_SECONDS = 300.0  # for another process that writes the page


def seconds_of(config: SweepConfig, place: str) -> float:
    """Seconds that a run has taken, all its starts together, up to its last validation."""
    return RunDirectory(config.directory / place).read_summary().get("wall_seconds") or 0.0


def read_status(config: SweepConfig) -> list[dict[str, Any]]:
    """How far a sweep is; nothing is run, and nothing changed."""
    if not (config.directory / JOURNAL).is_file():
        raise HeadlessError(
            f"{config.directory} holds no sweep yet: leave --status out to begin it"
        )
    arms, queue = read_arms(config), Queue(config)
    return describe_arms(config, arms, make_plan(config, arms, queue.results()), queue)


def describe_arms(
    config: SweepConfig, arms: Mapping[str, Arm], plan: Plan, queue: Queue
) -> list[dict[str, Any]]:
    """How far each arm is: runs by their state, the best so far, core-hours."""
    results, rows = queue.results(), []
    for name in plan.choices:
        jobs = [job for job in plan.jobs if job.arm == name]
        open_jobs = [job for job in jobs if job.place not in results]
        running = sum(queue.is_running(job.place) for job in open_jobs)
        ended = {job.place: results[job.place] for job in jobs if job.place in results}
        finals = {b: _scores(plan.runs[b].get(name, []), results) for b in config.budgets}
        seconds = sum(seconds_of(config, job.place) for job in jobs)
        rows.append(
            {
                "arm": name,
                "tuned": plan.choices[name].best,
                "done": len(ended),
                "running": running,
                "waiting": len(open_jobs) - running,
                "failed": sum(result.state == "failed" for result in ended.values()),
                "best": min((result.score for result in ended.values()), default=None),
                "scores": finals,
                "core_hours": seconds * config.threads_of_worker / 3600,
                "notes": plan.choices[name].notes,
            }
        )
    return rows


def _scores(jobs: list[Job], results: Mapping[str, Result]) -> dict[int, float]:
    """val/nll by seed."""
    found = ((job.seed, results.get(job.place)) for job in jobs)
    return {seed: result.nll for seed, result in found if result and result.nll is not None}


def write_outcome(
    config: SweepConfig, arms: Mapping[str, Arm], plan: Plan, queue: Queue
) -> dict[str, Any]:
    """Compare the runs that count and write it all down."""
    with exclusive(config.directory / SWEEP, patience=WAIT_SECONDS):
        reports = _compare(config, plan, queue.results())
        outcome = _outcome(config, arms, plan, queue) | {"reports": reports}
        write_json(config.directory / SWEEP, outcome)
    return outcome


def _compare(config: SweepConfig, plan: Plan, results: Mapping[str, Result]) -> dict[str, str]:
    """A page of each budget, and of each block of arms that are compared; their paths."""
    pages: dict[str, str] = {}
    for budget in config.budgets:
        for block, names in config.blocks.items():
            runs = {
                name: [
                    config.directory / job.place
                    for job in plan.runs[budget].get(name, [])
                    if job.place in results and results[job.place].state == "complete"
                ]
                for name in names
            }
            first = next((name for name in (config.baseline, *names) if runs.get(name or "")), None)
            if first is None:
                continue
            more = "equal-seconds" if budget == "equal_seconds" else ""
            title = "-".join(filter(None, ("report", more, block)))
            comparison = headless.compare(
                [run for of_name in runs.values() for run in of_name],
                output=config.directory / title,
                baseline=str(runs[first][0]),
                overwrite=True,
            )
            pages["/".join(filter(None, (budget, block)))] = str(comparison.report)
    return pages


def _outcome(
    config: SweepConfig, arms: Mapping[str, Arm], plan: Plan, queue: Queue
) -> dict[str, Any]:
    results = queue.results()
    rows = {row.pop("arm"): row for row in describe_arms(config, arms, plan, queue)}
    by_arm: dict[str, Any] = {}
    for name, row in rows.items():
        arm, runs = arms[name], [job for job in plan.jobs if job.arm == name]
        by_arm[name] = {
            **asdict(arm),
            **{key: row[key] for key in ("tuned", "notes", "core_hours")},
            "search": [
                {"values": job.values, **asdict(results[job.place])}
                for job in runs
                if job.stage == "tune" and job.place in results
            ],
            "budgets": {
                budget: {
                    "steps": jobs[0].steps if (jobs := plan.runs[budget].get(name)) else None,
                    "tokens": jobs[0].steps * arm.tokens_per_step if jobs else None,
                    "nll_by_seed": row["scores"][budget],
                    "runs": [job.place for job in jobs or []],
                }
                for budget in config.budgets
            },
            "failed": {
                job.place: results[job.place].why
                for job in runs
                if job.place in results and results[job.place].state == "failed"
            },
        }
    return {
        "format": 1,
        "score": "val/nll, nats a token, the last validation",
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "baseline": config.baseline or next(iter(arms)),
        "arms": by_arm,
        "core_hours": sum(row["core_hours"] for row in rows.values()),
        "environment": describe_environment(),
    }


def reports_of(outcome: Mapping[str, Any]) -> list[Path]:
    return [Path(path) for path in outcome["reports"].values()]
