"""All that is read or overridden here of Lightning's private names, as they are in 2.6.6.

| name | in |
| --- | --- |
| `_TrainingEpochLoop`, `_should_check_val_fx`, `_num_ready_batches_reached` | loops/training_epoch_loop.py |
| `_FitLoop._data_fetcher`, `_FitLoop._can_stop_early` | loops/fit_loop.py |
| `ModelParallelStrategy._data_parallel_size` | strategies/model_parallel.py |
| `DDPStrategy._ddp_kwargs` | strategies/ddp.py |
| `LightningModule._trainer` | core/module.py |
"""  # noqa: E501 - a table's row is one line

import inspect
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel


class EndValidatingLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, which validates after the last of a run, too.

    What asks whether a validation follows (checkpoints wait for it) is answered rightly.
    """

    @property
    def must_validate(self) -> bool:
        """Whether a validation follows the batch that has just been trained on."""
        fetcher = self.trainer.fit_loop._data_fetcher
        return fetcher is not None and self._should_check_val_fx(fetcher)

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        return super()._should_check_val_fx(data_fetcher) or (
            self.trainer.enable_validation and self._is_last_of_the_run()
        )

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
    loop = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = EndValidatingLoop(trainer, loop.min_steps, loop.max_steps)


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallel (FSDP2) over all devices; checkpoints are whole, in one file.

    A checkpoint of one device or of DDP is resumed by it, and the other way round.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def ddp_options() -> dict[str, bool]:
    """Settings of DDP that fit this module.

    * no broadcast of buffers: ours (counts of the vocabulary, positions) are the same on all
      ranks, and DDP would send all of them with every micro-batch.
    * gradient_as_bucket_view: gradients live in the buffers that are sent: one copy less.
    """
    names = inspect.signature(DistributedDataParallel).parameters
    newer = "forward_sync_buffers"  # torch >= 2.13 warns of the older name
    buffers = newer if newer in names else "broadcast_buffers"
    return {buffers: False, "gradient_as_bucket_view": True}


def tune(strategy: Strategy) -> None:
    """Give DDP those settings, where the user has not chosen others."""
    if isinstance(strategy, DDPStrategy):
        chosen = strategy._ddp_kwargs
        ours = ddp_options()
        if "broadcast_buffers" in chosen:
            ours.pop("forward_sync_buffers", None)  # two names of one setting
        strategy._ddp_kwargs = ours | chosen


def datamodule_of(module: LightningModule) -> Any:
    """The data module that a module is trained with; None without a trainer."""
    return getattr(module._trainer, "datamodule", None)
