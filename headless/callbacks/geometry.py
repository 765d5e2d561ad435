"""Anisotropy and effective rank of every layer while a model is trained.

Shapes: B sequences, T positions, D hidden size, N = B·(T-1) vectors.
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from headless.callbacks.evaluating import evaluating
from headless.callbacks.periodic import PeriodicMonitor
from headless.callbacks.progress import log_point
from headless.geometry import anisotropy, effective_rank


class GeometryMonitor(PeriodicMonitor):
    """Measures hidden states on a fixed batch of validation text: before, while and after training.

    The first position is kept apart: in most language models its states are many times longer
    than all others and the same whatever the token, and would decide any figure they enter.

    | key | meaning |
    | --- | --- |
    | `geometry/anisotropy/layer_00` ... | exact mean cosine of all pairs, without position 0 |
    | `geometry/effective_rank/layer_00` ... | Roy and Vetterli, centred, without position 0 |
    | `geometry/anisotropy_first_position/layer_00` ... | mean cosine of position 0 over sequences |
    | `geometry/anisotropy/embedding` | of the input embedding table's rows |
    | `geometry/effective_rank/embedding` | of the input embedding table |

    layer_00 is what enters the first block, the last layer what leaves the final norm.

    Args:
        every_n_steps: optimizer steps between two reports.
        num_sequences: sequences of the fixed batch.
    """

    looks_at_weights = True

    def __init__(self, every_n_steps: int = 200, num_sequences: int = 8) -> None:
        if num_sequences < 1:
            raise ValueError(f"num_sequences must be at least 1, got {num_sequences}")
        super().__init__(every_n_steps)
        self.num_sequences = num_sequences
        self._probe_BT: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The untrained model is the null that the trained one is compared with."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step == 0:
            self.report_now(trainer, pl_module)

    def report(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure the fixed batch and the embedding table."""
        if self._probe_BT is None:
            probe = trainer.datamodule.probe_batch(self.num_sequences)  # type: ignore[attr-defined]
            self._probe_BT = probe["input_ids"]
        # Every rank takes part in the forward pass: the weights may be sharded.
        with evaluating(pl_module), trainer.precision_plugin.forward_context():
            states = pl_module.backbone(
                input_ids=self._probe_BT.to(pl_module.device),
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
            if trainer.is_global_zero:
                log_point(trainer, measure(states, pl_module.embedding_VD.detach()))


def measure(states: tuple[Tensor, ...], embedding_VD: Tensor) -> dict[str, float]:
    """The keys of `GeometryMonitor` for the hidden states [B, T, D] of a model, layer by layer.

    What is not defined is left out: one sequence has no pairs of first positions. The device is
    waited for once.
    """
    found: dict[str, Tensor] = {
        "anisotropy/embedding": anisotropy(embedding_VD),
        "effective_rank/embedding": effective_rank(embedding_VD),
    }
    for layer, state_BTD in enumerate(states):
        name = f"layer_{layer:02d}"
        later_ND = state_BTD[:, 1:].flatten(0, 1)
        found[f"anisotropy/{name}"] = anisotropy(later_ND)
        found[f"effective_rank/{name}"] = effective_rank(later_ND)
        found[f"anisotropy_first_position/{name}"] = anisotropy(state_BTD[:, 0])
    values = torch.stack(list(found.values())).tolist()
    return {
        f"geometry/{key}": value
        for key, value in zip(found, values, strict=True)
        if value == value  # noqa: PLR0124 - NaN: not defined
    }
