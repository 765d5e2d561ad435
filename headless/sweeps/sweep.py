"""The verb: starts the workers of a sweep, waits for them, and compares what they trained."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from headless.errors import HeadlessError
from headless.files import exclusive, write_json
from headless.isolation import isolated
from headless.progress import Display, Report
from headless.sweeps.arms import find_arms
from headless.sweeps.config import WAIT_SECONDS, SweepConfig, read_sweep
from headless.sweeps.outcome import write_outcome
from headless.sweeps.plan import Arm, Plan
from headless.sweeps.queue import Queue
from headless.sweeps.work import Worker, refresh, work
from headless.training.imports import allowed_imports

DEFINITION, LOGS = "sweep.yaml", "workers"
LOOK_SECONDS = 2.0  # between two looks at what the workers have done


@isolated()
def sweep(
    config: str | Path | Mapping[str, Any] | SweepConfig,
    overrides: Mapping[str, Any] | None = None,
    *,
    progress: bool | Report = False,
) -> dict[str, Any]:
    """Train many runs and compare them: arms, each tuned for itself, several seeds.

    What is there is not trained again: a sweep that was stopped, or killed, goes on with the same
    call, and the same call on another machine with the same directory joins in.

    Args:
        config: a YAML file or its content: the fields of `SweepConfig`.
        overrides: fields to change, by dotted name: `{"workers": 2, "tune.trials": 30}`.
        progress: show it, or a function that gets (phase, done, in all).

    Returns:
        What `sweep.json` in the sweep's directory holds; where the workers were submitted to SLURM,
        the numbers of the jobs, the last of which writes it.

    Raises:
        HeadlessError: a wrong key, type or value; a directory that holds another sweep; a run that
            cannot be trained.
    """
    if not isinstance(config, SweepConfig):
        config = read_sweep(config, overrides)
    config.write_base()
    with Display(progress) as display, own_threads():
        queue = Queue(config)
        # Which refuses arms whose settings are others now, before anything is kept of them.
        arms = find_arms(config, display, lambda arms: refresh(config, arms, queue))
        definition = config.directory / DEFINITION
        with exclusive(definition, patience=WAIT_SECONDS):
            write_json(definition, config.as_json())  # which is YAML, too
        if config.slurm is not None:
            return {"jobs": _submit(config, config.slurm, definition)}
        if config.workers == 1:
            plan = work(config, display)
        else:
            plan = _watch(config, arms, queue, _start(config, definition), display)
        return write_outcome(config, arms, plan, queue)


@contextmanager
def own_threads() -> Iterator[None]:
    """The caller has as many threads as before."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start(config: SweepConfig, definition: Path) -> dict[Path, subprocess.Popen]:
    """Worker processes, each by its log; they end with this one."""
    threads = str(config.threads_of_worker)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", "headless.sweeps.work", str(definition), *allowed_imports()]
    logs = config.directory / LOGS
    logs.mkdir(exist_ok=True)
    workers: dict[Path, subprocess.Popen] = {}
    for number in range(config.workers):
        log = logs / f"{os.uname().nodename}-{os.getpid()}-{number}.log"
        with open(log, "wb") as file:
            workers[log] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment
            )
    return workers


def _watch(
    config: SweepConfig,
    arms: Mapping[str, Arm],
    queue: Queue,
    workers: dict[Path, subprocess.Popen],
    display: Display,
) -> Plan:
    """Show what the workers do until they are done."""
    try:
        while True:
            at_work = any(worker.poll() is None for worker in workers.values())
            plan, done = refresh(config, arms, queue)
            display.report("runs", done, len(plan.jobs), queue.at_work())
            if done == len(plan.jobs) and plan.complete:
                return plan
            if not at_work:
                break
            time.sleep(LOOK_SECONDS)
    finally:
        for worker in workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()
    log = next(log for log, worker in workers.items() if worker.returncode)
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    error = (words or ["without a word"])[-1].removeprefix("headless: ").removeprefix("error: ")
    raise HeadlessError(f"a worker ended early: {error} (its log is {log})")


def _submit(config: SweepConfig, parameters: Mapping[str, Any], definition: Path) -> list[str]:
    """Workers as jobs of SLURM; the numbers of the jobs."""
    try:
        import submitit
    except ImportError as error:
        raise HeadlessError(
            "slurm needs submitit: pip install 'headless-lm[slurm]', or leave slurm out"
        ) from error
    executor = submitit.AutoExecutor(config.directory / LOGS, cluster=parameters.get("cluster"))
    executor.update_parameters(**{k: v for k, v in parameters.items() if k != "cluster"})
    worker = Worker(allowed_imports())
    jobs = [executor.submit(worker, str(definition), writes=True) for _ in range(config.workers)]
    return [job.job_id for job in jobs]
