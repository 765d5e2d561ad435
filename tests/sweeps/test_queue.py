"""The queue: each run is one worker's at a time, and a dead one's is anybody's."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from headless.sweeps.config import Halving, SweepConfig
from headless.sweeps.plan import Job, Result
from headless.sweeps.queue import Queue

JOBS = [Job("final", "a", {"model.optimizer.lr": 1e-3}, seed, 8) for seed in (1, 2, 3)]
PAIRS = [(job, {"seed_everything": job.seed}) for job in JOBS]


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    config = SweepConfig("s", {}, arms={"a": {}}, root=tmp_path)
    config.directory.mkdir()
    return config


def claim_and_wait(config: SweepConfig, told: "multiprocessing.SimpleQueue[str]") -> None:
    queue = Queue(config)
    job = queue.claim(JOBS)
    told.put(job.place if job else "")
    signal.pause()


def test_a_run_is_one_workers_until_it_dies(config: SweepConfig) -> None:
    mine = Queue(config)
    mine.add(PAIRS)
    mine.add(PAIRS)  # each once
    assert list(mine.trials()) == [job.place for job in JOBS]
    assert mine.claim(JOBS) == JOBS[0]
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    other = context.Process(target=claim_and_wait, args=(config, told))
    other.start()
    assert told.get() == JOBS[1].place
    assert mine.is_running(JOBS[0].place)
    assert mine.is_running(JOBS[1].place)
    assert mine.claim(JOBS) == JOBS[2]
    assert mine.claim(JOBS) is None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert mine.claim(JOBS) == JOBS[1]
    mine.tell(JOBS[1], Result("complete", 4.5))
    assert Queue(config).claim(JOBS) is None
    mine.release(JOBS[0])
    assert Queue(config).claim(JOBS) == JOBS[0]
    mine.tell(JOBS[1], Result("failed", why="taken over"))  # by one that slept meanwhile
    assert mine.results() == {JOBS[1].place: Result("complete", 4.5)}


def test_a_record_that_was_cut_off_costs_nothing(config: SweepConfig) -> None:
    Queue(config).add(PAIRS[:1])
    with open(config.directory / "journal.log", "ab") as journal:
        journal.write(b'{"op_code":4,"work')
    queue = Queue(config)
    queue.add(PAIRS)
    assert list(queue.trials()) == list(Queue(config).trials()) == [job.place for job in JOBS]


def test_halving_ends_the_worst_of_the_tuning_runs(config: SweepConfig) -> None:
    queue = Queue(replace(config, pruning=Halving(min_resource=10, reduction_factor=2)))
    jobs = [replace(job, stage="tune") for job in JOBS]
    queue.add([(job, {}) for job in jobs])
    ends = []
    for job, nll in zip(jobs, (4.0, 5.0, 3.0), strict=True):
        assert queue.claim(jobs) == job
        ends.append(queue.is_hopeless(job, 10, nll))
        queue.tell(job, Result("pruned" if ends[-1] else "complete", nll))
    assert ends == [False, True, False]
    assert queue.results()[jobs[1].place] == Result("pruned", 5.0)
