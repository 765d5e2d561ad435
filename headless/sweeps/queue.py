"""The queue of a sweep: Optuna's journal in its directory, from which any number of workers take.

Every run is a trial: WAITING, RUNNING, then COMPLETE with its val/nll, FAIL or PRUNED; the tuning
of an arm is a study, and the runs that count are one. The journal orders what workers on several
machines write to it. It has no heartbeat, though (only Optuna's databases do, and those fail a dead
worker's trial and begin another one), so that a trial which is RUNNING may be nobody's. What says
who works on a run is therefore a lease beside it, kept alive by its holder: that of a dead process
is void, and the run goes on from its last checkpoint with whoever takes it over.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import optuna
from filelock import SoftFileLease, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from headless.errors import HeadlessError
from headless.files import LEASE_SECONDS, exclusive
from headless.structured import is_number
from headless.sweeps.config import Settings, SweepConfig
from headless.sweeps.plan import Job, Result

JOURNAL, CLAIMS = "journal.log", "claims"
FINISHED = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}
WAIT_SECONDS = 60.0  # for another worker that adds to the queue


class Queue:
    """What is known of the runs of a sweep."""

    def __init__(self, config: SweepConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.directory = config.directory
        self.pruner = config.pruning and optuna.pruners.SuccessiveHalvingPruner(
            **asdict(config.pruning)
        )
        journal = str(self.directory / JOURNAL)
        backend = JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal))
        self.storage = optuna.storages.JournalStorage(backend)
        self.studies: dict[str, optuna.Study] = {}
        self.leases: dict[str, SoftFileLease] = {}

    def _study(self, name: str) -> optuna.Study:
        if name not in self.studies:
            self.studies[name] = optuna.create_study(
                storage=self.storage, study_name=name, load_if_exists=True
            )
        return self.studies[name]

    def _study_of(self, job: Job) -> optuna.Study:
        return self._study(f"tune {job.arm}" if job.stage == "tune" else "final")

    def trials(self) -> dict[str, FrozenTrial]:
        """Every run by its place."""
        found: dict[str, FrozenTrial] = {}
        for study in self.storage.get_all_studies():
            for trial in self.storage.get_all_trials(study._study_id, deepcopy=False):
                found.setdefault(trial.user_attrs["place"], trial)
        return found

    def results(self) -> dict[str, Result]:
        """How the runs ended that did."""
        return {
            place: Result(FINISHED[trial.state], trial.value, trial.user_attrs.get("why", ""))
            for place, trial in self.trials().items()
            if trial.state in FINISHED
        }

    def add(self, jobs: Sequence[tuple[Job, Settings]]) -> None:
        """Put runs with their settings into the queue, each once.

        Raises:
            HeadlessError: one is in it with other settings.
        """
        if self._missing(jobs):
            with exclusive(self.directory / "queue", patience=WAIT_SECONDS):
                for job, settings in self._missing(jobs):
                    spaces = {name: _distribution(value) for name, value in job.values.items()}
                    self._study_of(job).add_trial(
                        optuna.trial.create_trial(
                            state=TrialState.WAITING,
                            params=job.values,
                            distributions=spaces,
                            user_attrs={"place": job.place, "seed": job.seed, "settings": settings},
                        )
                    )

    def _missing(self, jobs: Sequence[tuple[Job, Settings]]) -> list[tuple[Job, Settings]]:
        trials = self.trials()
        for job, settings in jobs:
            trial = trials.get(job.place)
            before = trial.user_attrs["settings"] if trial else settings
            if before != settings:
                keys = sorted(k for k in {**before, **settings} if before.get(k) != settings.get(k))
                raise HeadlessError(
                    f"{self.directory / job.place} was begun with another {keys[0]} "
                    f"({before.get(keys[0])}, now {settings.get(keys[0])}): give the arm or the "
                    "sweep another name"
                )
        return [pair for pair in jobs if pair[0].place not in trials]

    def claim(self, jobs: Sequence[Job]) -> Job | None:
        """A run that nobody works on, for this process until `tell` or `release`; None: there is
        none now."""
        trials = self.trials()
        for job in sorted(jobs, key=lambda job: trials[job.place].state != TrialState.WAITING):
            if trials[job.place].state in FINISHED or not self._take(job.place):
                continue
            trial = self.trials()[job.place]  # another worker may have ended it just now
            if trial.state not in FINISHED:
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

    def check(self, job: Job) -> None:
        """Refuse to go on with a run that another worker took over while this one slept."""
        if self.leases[job.place].compromise is not None:
            raise HeadlessError(f"{job.place} was taken over: this process gave no sign of life")

    def is_running(self, place: str) -> bool:
        """Whether a worker has claimed a run."""
        if held := self._take(place):
            self.leases[place].release()
        return not held

    def release(self, job: Job) -> None:
        self.leases[job.place].release()

    def tell(self, job: Job, result: Result) -> None:
        """Say how a claimed run ended, and give it up."""
        trial = self.trials()[job.place]
        if result.why:
            self.storage.set_trial_user_attr(trial._trial_id, "why", result.why)
        state = next(state for state, name in FINISHED.items() if name == result.state)
        values = None if result.nll is None else [result.nll]
        self.storage.set_trial_state_values(trial._trial_id, state, values)
        self.release(job)

    def is_hopeless(self, job: Job, step: int, nll: float) -> bool:
        """Report a validation of a claimed run; whether the pruner would end it."""
        study, number = self._study_of(job), self.trials()[job.place]._trial_id
        self.storage.set_trial_intermediate_value(number, step, nll)
        if self.pruner is None or job.stage != "tune":
            return False
        return self.pruner.prune(study, self.storage.get_trial(number))


def _distribution(value: Any) -> BaseDistribution:
    """A trial needs one for each of its values."""
    if is_number(value) and not isinstance(value, int):
        return FloatDistribution(value, value)
    return CategoricalDistribution([value])
