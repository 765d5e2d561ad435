"""The queue of a sweep: Optuna's journal in its directory, from which any number of workers take.

Every run is a trial: WAITING, RUNNING, then COMPLETE with its val/nll, FAIL or PRUNED; the tuning
of an arm is a study, and the runs that count are one. The journal orders what workers on several
machines write to it. It has no heartbeat, though (only Optuna's databases do, and those fail a dead
worker's trial and begin another one), so that a trial which is RUNNING may be nobody's. What says
who works on a run is therefore a lease beside it, kept alive by its holder: that of a dead process
is void, and whoever takes it over goes on from the run's last checkpoint.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from filelock import SoftFileLease, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from headless.errors import BusyError, HeadlessError
from headless.files import LEASE_SECONDS, exclusive
from headless.runs.metrics import append_point
from headless.sweeps.config import Settings, SweepConfig
from headless.sweeps.plan import Job, Result

JOURNAL, CLAIMS = "journal.log", "claims"
STATES = {
    "complete": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
}
NAMES = {state: name for name, state in STATES.items()}
WAIT_SECONDS = 60.0  # for another worker that adds to the queue


class _Journal(JournalFileBackend):
    """Optuna's own would add a record to one that a full disk or a kill left half written, and
    could read neither any more."""

    def __init__(self, path: str) -> None:
        self.path, self.lock = Path(path), JournalFileOpenLock(path)
        super().__init__(path, lock_obj=self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.lock.acquire()
        try:
            for log in logs:
                append_point(self.path, log)
        finally:
            self.lock.release()


class Queue:
    """What is known of the runs of a sweep, each by its place."""

    def __init__(self, config: SweepConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.directory = config.directory
        self.pruner: optuna.pruners.BasePruner | None = None
        if config.pruning is not None:
            self.pruner = optuna.pruners.SuccessiveHalvingPruner(**asdict(config.pruning))
        journal = _Journal(str(self.directory / JOURNAL))
        self.storage = optuna.storages.JournalStorage(journal)
        self.studies: dict[str, optuna.Study] = {}
        self.leases: dict[str, SoftFileLease] = {}

    def _study_of(self, job: Job) -> optuna.Study:
        name = f"tune {job.arm}" if job.stage == "tune" else "final"
        if name not in self.studies:
            self.studies[name] = optuna.create_study(
                storage=self.storage, study_name=name, load_if_exists=True
            )
        return self.studies[name]

    def trials(self) -> dict[str, FrozenTrial]:
        """Every run."""
        studies = [study._study_id for study in self.storage.get_all_studies()]
        trials = (t for s in studies for t in self.storage.get_all_trials(s, deepcopy=False))
        return {trial.user_attrs["place"]: trial for trial in trials}

    def results(self) -> dict[str, Result]:
        """How the runs ended that did."""
        return {
            place: Result(NAMES[trial.state], trial.value, trial.user_attrs.get("why", ""))
            for place, trial in self.trials().items()
            if trial.state in NAMES
        }

    def add(self, jobs: Sequence[tuple[Job, Settings]]) -> None:
        """Put runs with their settings into the queue, each once.

        Raises:
            HeadlessError: one is in it with other settings.
        """
        if self._missing(jobs):
            with exclusive(self.directory / "queue", patience=WAIT_SECONDS):
                for job, settings in self._missing(jobs):
                    trial = optuna.trial.create_trial(
                        state=TrialState.WAITING,
                        params=job.values,
                        distributions={key: _only(value) for key, value in job.values.items()},
                        user_attrs={"place": job.place, "seed": job.seed, "settings": settings},
                    )
                    self._study_of(job).add_trial(trial)

    def _missing(self, jobs: Sequence[tuple[Job, Settings]]) -> list[tuple[Job, Settings]]:
        trials = self.trials()
        for job, now in jobs:
            then = trials[job.place].user_attrs["settings"] if job.place in trials else now
            for key in sorted({**then, **now}):
                if then.get(key) != now.get(key):
                    raise HeadlessError(
                        f"{self.directory / job.place} was begun with another {key} "
                        f"({then.get(key)}, now {now.get(key)}): give the arm or the sweep another "
                        "name"
                    )
        return [pair for pair in jobs if pair[0].place not in trials]

    def claim(self, jobs: Sequence[Job]) -> Job | None:
        """A run for this process alone until `tell` or `release`; None where there is none now."""
        trials = self.trials()
        for job in jobs:  # in their order: also one that was cut off comes before those after it
            if trials[job.place].state not in NAMES and self._take(job.place):
                trial = self.trials()[job.place]  # another worker may have ended it just now
                if trial.state not in NAMES:
                    if trial.state == TrialState.WAITING:
                        self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
                    return job
                self.release(job)
        return None

    def _take(self, place: str) -> bool:
        file = self.directory / CLAIMS / f"{place.replace('/', '-')}.lock"
        file.parent.mkdir(exist_ok=True)
        # Kept: a lease of another host is void after this one has seen it without a sign of life.
        lease = self.leases.setdefault(
            place, SoftFileLease(file, lease_duration=LEASE_SECONDS, thread_local=False)
        )
        if not lease.is_locked:  # which this process could take a second time
            with suppress(Timeout):
                lease.acquire(timeout=0)
                return True
        return False

    def is_running(self, place: str) -> bool:
        """Whether a worker has claimed a run."""
        is_free = self._take(place)
        if is_free:
            self.leases[place].release()
        return not is_free

    def at_work(self) -> str:
        """The runs that were begun and how far they had come at their last validation."""
        begun = {p: t for p, t in self.trials().items() if t.state == TrialState.RUNNING}
        steps = {p: max(t.intermediate_values, default=0) for p, t in begun.items()}
        return ", ".join(f"{p.split('/')[-1]}: step {step}" for p, step in steps.items())

    def release(self, job: Job) -> None:
        self.leases[job.place].release()

    def tell(self, job: Job, result: Result) -> None:
        """Say how a claimed run ended, and give it up; what another worker said before stays."""
        trial = self.trials()[job.place]._trial_id
        values = None if result.nll is None else [result.nll]
        with suppress(UpdateFinishedTrialError):
            if result.why:
                self.storage.set_trial_user_attr(trial, "why", result.why)
            self.storage.set_trial_state_values(trial, STATES[result.state], values)
        self.release(job)

    def is_hopeless(self, job: Job, step: int, nll: float) -> bool:
        """Report a validation of a claimed run; whether the pruner ends it.

        Raises:
            BusyError: another worker took the run over while this process slept.
        """
        if self.leases[job.place].compromise is not None:
            raise BusyError(f"{job.place} was taken over: this process gave no sign of life")
        trial = self.trials()[job.place]._trial_id
        self.storage.set_trial_intermediate_value(trial, step, nll)
        if self.pruner is None or job.stage != "tune":
            return False
        return self.pruner.prune(self._study_of(job), self.storage.get_trial(trial))


def _only(value: object) -> BaseDistribution:
    """A trial needs a distribution for each of its values."""
    is_float = isinstance(value, float)
    return FloatDistribution(value, value) if is_float else CategoricalDistribution([value])  # type: ignore[arg-type, list-item]
