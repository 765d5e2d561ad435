"""A worker: takes runs from the queue and trains them until the sweep has all that it wants."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import torch

import headless
from headless.errors import BusyError, DivergedError, HeadlessError
from headless.progress import Display
from headless.runs.directory import RunDirectory
from headless.runs.run import Run
from headless.sweeps.config import BEGIN_FROM, Settings, SweepConfig, read_sweep
from headless.sweeps.outcome import write_outcome
from headless.sweeps.plan import Arm, Job, Plan, Result, make_plan, read_arms
from headless.sweeps.queue import Queue
from headless.training.imports import allow_import

SCORE = "val/nll"
POLL_SECONDS = 1.0  # between two looks for work while others have it all


class _Hopeless(Exception):  # noqa: N818 - no error
    """The pruner ends a run."""


def settings_of(config: SweepConfig, arm: Arm, job: Job) -> Settings:
    """The settings of a run, without its place: what its result depends on."""
    settings = {key: value for key, value in arm.settings.items() if key != BEGIN_FROM}
    settings |= job.values
    if job.begin_from:
        settings["model.init_from"] = str(config.directory / job.begin_from)
    if job.steps != arm.steps:
        settings["trainer.max_steps"] = job.steps
        settings["model.schedule.warmup_steps"] = round(arm.warmup_steps * job.steps / arm.steps)
    # What begins from a run gets the data in another order than that.
    return {**settings, "seed_everything": job.seed + (job.begin_from is not None)}


def refresh(config: SweepConfig, arms: Mapping[str, Arm], queue: Queue) -> tuple[Plan, int]:
    """What is wanted now, all of it in the queue, and how many of these runs have ended."""
    results = queue.results()
    plan = make_plan(config, arms, results)
    queue.add([(job, settings_of(config, arms[job.arm], job)) for job in plan.jobs])
    return plan, sum(job.place in results for job in plan.jobs)


def work(config: SweepConfig, display: Display) -> Plan:
    """Train what the queue holds until there is nothing left, also for others."""
    torch.set_num_threads(config.threads_of_worker)
    arms, queue = read_arms(config), Queue(config)
    while True:
        plan, done = refresh(config, arms, queue)
        display.report("runs", done, len(plan.jobs))
        if done == len(plan.jobs) and plan.complete:
            return plan
        job = queue.claim(plan.jobs)
        if job is None:
            time.sleep(POLL_SECONDS)
            continue
        try:
            result = _train(config, arms[job.arm], job, queue, display, (done, len(plan.jobs)))
        except BaseException:
            queue.release(job)
            raise
        queue.tell(job, result)


def _train(
    config: SweepConfig, arm: Arm, job: Job, queue: Queue, display: Display, at: tuple[int, int]
) -> Result:
    """Train a run, go on with it, or read what is there."""
    path = config.directory / job.place
    place = {"run.name": path.name, "run.root": str(path.parent), "run.resume": True}
    # `compare` takes an arm's own rates for no fault of the comparison where all are tagged so.
    rates = job.stage != "tune" and any(key.endswith("lr") for key in job.values)
    tags = [job.arm, job.stage, *["tuned"] * rates]
    labels = {"run.group": config.name, "run.tags": tags}
    is_searched = job.steps == (config.tune.max_steps or arm.steps)  # not what others begin from

    def on_validation(run: Run) -> None:
        nll, step = run.last.get(SCORE), run.last.get("progress/step")
        if nll is not None and step is not None:
            is_hopeless = queue.is_hopeless(job, int(step), nll)
            if is_hopeless and is_searched:
                raise _Hopeless

    def report(phase: str, done: int, total: int) -> None:
        if total == job.steps:  # no validation's batches
            display.report("runs", *at, f"{path.name}: {done} of {total}")

    run = Run(path) if RunDirectory(path).summary.is_file() else None
    if run is None or not run.finished:
        overrides = {**labels, **settings_of(config, arm, job), **place}
        try:
            run = headless.pretrain(
                config.base_file, overrides, progress=report, on_validation=on_validation
            )
        except _Hopeless:
            _discard(config, job)
            return Result("pruned", Run(path).last.get(SCORE))
        except DivergedError as error:
            _discard(config, job)
            return Result("failed", why=str(error))
        except HeadlessError as error:
            if job.stage != "tune" or _is_given(config, job) or isinstance(error, BusyError):
                raise
            return Result("failed", why=str(error))  # a widened grid left what is possible
    nll = run.last.get(SCORE)
    _discard(config, job)
    return Result("failed", why="no validation") if nll is None else Result("complete", nll)


def _discard(config: SweepConfig, job: Job) -> None:
    """The weights of a tuning run that has ended, unless others begin from its arm."""
    is_source = any(settings.get(BEGIN_FROM) == job.arm for settings in config.settings.values())
    if job.stage == "tune" and not (config.keep_tuning_checkpoints or is_source):
        checkpoints = RunDirectory(config.directory / job.place).checkpoints
        shutil.rmtree(checkpoints, ignore_errors=True)


def _is_given(config: SweepConfig, job: Job) -> bool:
    """Whether a run's values are those that the config names."""
    spaces = config.tune.parameters_of(job.arm)
    return all(value in spaces[name].get("grid", [value]) for name, value in job.values.items())


class Worker:
    """What a process of its own does, on this machine or wherever SLURM puts it.

    Args:
        imports: the user's modules whose classes the sweep's configs may name.
    """

    def __init__(self, imports: Sequence[str]) -> None:
        self.imports = list(imports)

    def __call__(self, definition: str, *, writes: bool = False) -> None:
        """Work on a sweep; the last ones write what came out where nobody waits for them."""
        for module in self.imports:
            allow_import(module)
        config = read_sweep(definition)
        plan = work(config, Display(False))
        if writes:
            write_outcome(config, read_arms(config), plan, Queue(config))

    def checkpoint(self, *arguments: object, **options: object) -> object:
        """What submitit calls before SLURM takes the machine away: go on on another one."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments, **options)


def _end_with_parent() -> None:
    """A worker whose parent is gone is killed, which it may be at any moment.

    Not `sys.stdin.read()`: it holds a lock that a loader's process, forked from here, waits for.
    """
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        Worker(sys.argv[2:])(sys.argv[1])
    except HeadlessError as error:
        sys.exit(f"headless: error: {error}")
    except KeyboardInterrupt:
        sys.exit("headless: interrupted; the sweep goes on with the same command")
