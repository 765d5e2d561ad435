"""When a run validates: as Lightning's options say, and always at the end of training."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop


class _EndValidatingLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, which validates after the last of a run, too.

    What asks whether a validation follows (checkpoints wait for it) is answered rightly.
    """

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        return super()._should_check_val_fx(data_fetcher) or (
            self.trainer.enable_validation and self._is_last_of_the_run()
        )

    @property
    def must_validate(self) -> bool:
        """Whether a validation follows the batch that has just been trained on."""
        fetcher = self.trainer.fit_loop._data_fetcher
        return fetcher is not None and self._should_check_val_fx(fetcher)

    def _is_last_of_the_run(self) -> bool:
        """Whether the batch that has just been trained on is the last one.

        A limit of time or a callback's wish to stop is Lightning's own reason to validate, but not
        in an epoch that `check_val_every_n_epoch` passes over.
        """
        trainer = self.trainer
        epochs: Any = trainer.fit_loop
        if 0 < self.max_steps <= self.global_step:
            return True
        if trainer.should_stop and epochs._can_stop_early:
            return True
        done = epochs.epoch_progress.current.processed + 1
        return self._num_ready_batches_reached() and 0 < (epochs.max_epochs or 0) <= done


def validate_at_the_end(trainer: Trainer) -> None:
    """Let a trainer's scores be those of the state that it leaves behind."""
    given = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = _EndValidatingLoop(trainer, given.min_steps, given.max_steps)
