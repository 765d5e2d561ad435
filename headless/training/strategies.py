"""How a run is spread over devices, beyond what Lightning's own strategies do by themselves."""

import inspect
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from headless.errors import HeadlessError


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallel (FSDP2) over all devices; checkpoints are whole, in one file.

    A checkpoint of one device or of DDP is resumed by it, and the other way round.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        """All devices share the data and the weights."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def choose_strategy(strategy: Any) -> Any:
    """What `trainer.strategy` means here: "fsdp" is ours, everything else Lightning's.

    Raises:
        HeadlessError: Lightning's own FSDPStrategy, whose gradients' norm is not ours to know.
    """
    if strategy == "fsdp":
        return ShardedStrategy()
    if isinstance(strategy, FSDPStrategy) or strategy == "fsdp_cpu_offload":
        raise HeadlessError(
            "Lightning's FSDPStrategy (FSDP1) is not supported: choose trainer.strategy fsdp, "
            "which is FSDP2 here"
        )
    return strategy


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


def cluster_plugins(given: Sequence[Any] = ()) -> list[Any]:
    """Under SLURM: its environment without Lightning's handler of the requeue signal.

    The handler saves a checkpoint from wherever each rank happens to be, in the middle of a step,
    and the ranks' collectives then meet each other's. `last.ckpt` is whole at any moment: the batch
    script requeues (docs/scaling.md), and the run goes on from there.

    Args:
        given: the user's own plugins; an environment among them is taken instead.
    """
    if any(isinstance(plugin, ClusterEnvironment) for plugin in given):
        return []
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
