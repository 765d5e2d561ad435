"""What a sweep has come to so far: its arms, `sweep.json`, and the pages of `compare`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import headless
from headless.errors import HeadlessError
from headless.files import exclusive, write_json
from headless.runs.directory import RunDirectory
from headless.runs.environment import describe_environment
from headless.runs.run import Run
from headless.sweeps.config import ARMS, SweepConfig
from headless.sweeps.plan import Arm, Job, Plan, Result, make_plan, read_arms
from headless.sweeps.queue import Queue

SWEEP = "sweep.json"
WAIT_SECONDS = 300.0  # for another process that writes the page


def read_status(config: SweepConfig) -> dict[str, dict[str, Any]]:
    """How far each arm is that the sweep has begun with, by its name; nothing is run."""
    if not (config.directory / ARMS).is_file():
        raise HeadlessError(f"{config.directory} holds no sweep yet: leave --status out to begin")
    arms, queue = read_arms(config), Queue(config)
    return describe_arms(config, arms, make_plan(config, arms, queue.results()), queue)


def describe_arms(
    config: SweepConfig, arms: Mapping[str, Arm], plan: Plan, queue: Queue
) -> dict[str, dict[str, Any]]:
    """Each arm: what it is, how far, what was tried and chosen, what came out, what it took."""
    results, described = queue.results(), {}
    for name, choice in plan.choices.items():
        jobs = [job for job in plan.jobs if job.arm == name]
        ended = [(job, results[job.place]) for job in jobs if job.place in results]
        running = sum(queue.is_running(job.place) for job in jobs if job.place not in results)
        summaries = (RunDirectory(config.directory / job.place).read_summary() for job in jobs)
        seconds = sum(summary.get("wall_seconds") or 0.0 for summary in summaries)
        described[name] = {
            **asdict(arms[name]),
            "tuned": choice.best,
            "notes": choice.notes,
            "search": [
                {"values": job.values, **asdict(result)}
                for job, result in ended
                if job.stage == "tune"
            ],
            "budgets": {
                budget: _budget(config, plan.runs[budget].get(name, []), arms[name], results)
                for budget in config.budgets
            },
            "failed": {job.place: r.why for job, r in ended if r.state == "failed"},
            "best": min((r.score for _, r in ended), default=None),
            "done": len(ended),
            "running": running,
            "waiting": len(jobs) - len(ended) - running,
            "core_hours": seconds * config.threads_of_worker / 3600,
        }
    return described


def _budget(
    config: SweepConfig, jobs: list[Job], arm: Arm, results: Mapping[str, Result]
) -> dict[str, Any]:
    """The runs of an arm that count; bits a byte are what arms of other tokenizers compare by."""
    summaries = {
        job.seed: RunDirectory(config.directory / job.place).read_summary()
        for job in jobs
        if job.place in results
    }
    bits = {s: found.get("last", {}).get("val/bits_per_byte") for s, found in summaries.items()}
    steps = jobs[0].steps if jobs else None
    ended = {job.seed: results[job.place].nll for job in jobs if job.place in results}
    return {
        "steps": steps,
        "tokens": steps and steps * arm.tokens_per_step,
        "nll_by_seed": {seed: nll for seed, nll in ended.items() if nll is not None},
        "bits_per_byte_by_seed": {seed: x for seed, x in bits.items() if x is not None},
        "runs": [job.place for job in jobs],
    }


def write_outcome(
    config: SweepConfig, arms: Mapping[str, Arm], plan: Plan, queue: Queue
) -> dict[str, Any]:
    """Compare the runs that count and write it all down."""
    with exclusive(config.directory / SWEEP, patience=WAIT_SECONDS):
        described = describe_arms(config, arms, plan, queue)
        outcome = {
            "format": 1,
            "score": "val/nll, nats a token, the last validation",
            "baseline": config.baseline or next(iter(arms)),
            "arms": described,
            "core_hours": sum(arm["core_hours"] for arm in described.values()),
            "reports": _compare(config, plan, queue.results()),
            "config": config.as_json(),
            "environment": describe_environment(),
        }
        write_json(config.directory / SWEEP, outcome)
    return outcome


def _compare(config: SweepConfig, plan: Plan, results: Mapping[str, Result]) -> dict[str, str]:
    """A page of each budget, and of each block of arms that are compared; their paths."""
    pages: dict[str, str] = {}
    for budget in config.budgets:
        for block, names in config.blocks.items():
            ordered = sorted(names, key=lambda name: name != config.baseline)
            jobs = [job for name in ordered for job in plan.runs[budget].get(name, [])]
            ended = [j.place for j in jobs if (r := results.get(j.place)) and r.state == "complete"]
            # Of runs of which some began from a model, those that did not are the comparison.
            anew = [p for p in ended if not Run(config.directory / p).init_from] or ended
            if ended:
                more = "equal-seconds" if budget == "equal_seconds" else ""
                comparison = headless.compare(
                    [config.directory / place for place in ended],
                    output=config.directory / "-".join(filter(None, ("report", more, block))),
                    baseline=str(config.directory / anew[0]),
                    overwrite=True,
                )
                pages["/".join(filter(None, (budget, block)))] = str(comparison.report)
    return pages
