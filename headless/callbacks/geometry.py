"""Anisotropy and effective rank of every layer while a model is trained.

Shapes: B sequences, T positions, D hidden size, N real tokens but those of position 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from headless.callbacks.evaluating import evaluating
from headless.callbacks.periodic import PeriodicMonitor
from headless.callbacks.progress import log_point
from headless.geometry import anisotropy, effective_rank
from headless.geometry.marchenko_pastur import effective_rank_of_noise

ENOUGH = 8  # states for each dimension: noise then has an effective rank of 0.98 D
AT_LEAST = 8  # sequences, for the states of position 0
ROOM = 2**30  # bytes that the states of all layers may take: they grow with the width squared


class GeometryMonitor(PeriodicMonitor):
    """Measures hidden states on fixed validation text: before, while and after training.

    The first position is kept apart: in most language models its states are many times longer
    than all others and the same whatever the token, and would decide any figure they enter. What
    fills up a last sequence is left out.

    | key | meaning |
    | --- | --- |
    | `geometry/anisotropy/layer_00` ... | exact mean cosine of all pairs, without position 0 |
    | `geometry/effective_rank/layer_00` ... | Roy and Vetterli, centred, without position 0 |
    | `geometry/effective_rank/bound` | the most that so many states can have: min(N - 1, D) |
    | `geometry/effective_rank/null` | that of as many states drawn from a Gaussian |
    | `geometry/states` | N: how many there are |
    | `geometry/anisotropy_first_position/layer_00` ... | mean cosine of position 0 over sequences |
    | `geometry/anisotropy/embedding` | of the input embedding table's rows |
    | `geometry/effective_rank/embedding` | of the input embedding table |

    layer_00 is what enters the first block, the last layer what leaves the final norm.

    Args:
        every_n_steps: optimizer steps between two reports.
        num_sequences: of the fixed text; None: eight, or more where they have fewer states than
            eight times the hidden size and 1 GiB holds those of all layers.
    """

    looks_at_weights = True

    def __init__(self, every_n_steps: int = 200, num_sequences: int | None = None) -> None:
        if num_sequences is not None and num_sequences < 1:
            raise ValueError(f"num_sequences must be at least 1, got {num_sequences}")
        super().__init__(every_n_steps)
        self.num_sequences = num_sequences
        self._probe: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The untrained model is the null that the trained one is compared with."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step == 0:
            self.report_now(trainer, pl_module)

    def report(self, trainer: Trainer, pl_module: Any) -> None:
        """Measure the fixed batch and the embedding table."""
        if not self._probe:
            self._probe = self._take_text(trainer, pl_module)
        # Every rank takes part in the forward pass: the weights may be sharded.
        with evaluating(pl_module), trainer.precision_plugin.forward_context():
            states = [self._states(pl_module, ids_BT) for ids_BT in self._probe]
            if trainer.is_global_zero:
                layers = [
                    (
                        torch.cat([state_BTD[:, 0] for state_BTD in parts]),
                        torch.cat([state_BTD[:, 1:].flatten(0, 1) for state_BTD in parts]),
                    )
                    for parts in zip(*states, strict=True)
                ]
                log_point(trainer, measure(layers, pl_module.embedding_VD.detach()))

    def _take_text(self, trainer: Trainer, pl_module: Any) -> list[Tensor]:
        """Token ids [B, T]: full sequences, a few at a time, then the one that is not."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        wanted = self.num_sequences
        if wanted is None:
            each = max(1, data.sequence_length - 1)
            layers = pl_module.backbone.config.num_hidden_layers + 1
            fitting = ROOM // (4 * pl_module.hidden_size * layers * data.sequence_length)
            enough = -(-ENOUGH * pl_module.hidden_size // each)
            wanted = max(AT_LEAST, min(enough, fitting))
        probe = data.probe_batch(wanted)
        ids_BT, lengths_B = probe["input_ids"], probe["lengths"]
        full_B = lengths_B == ids_BT.shape[1]
        parts = list(ids_BT[full_B].split(max(AT_LEAST, data.val_batch_size)))
        rest = ids_BT[~full_B], lengths_B[~full_B].tolist()
        parts += [row_T[:length][None] for row_T, length in zip(*rest, strict=True) if length]
        return [part_BT for part_BT in parts if len(part_BT)]

    def _states(self, pl_module: Any, ids_BT: Tensor) -> tuple[Tensor, ...]:
        return pl_module.backbone(
            input_ids=ids_BT.to(pl_module.device), output_hidden_states=True, use_cache=False
        ).hidden_states


def measure(layers: Sequence[tuple[Tensor, Tensor]], embedding_VD: Tensor) -> dict[str, float]:
    """The keys of `GeometryMonitor` for the hidden states of a model, layer by layer.

    What is not defined is left out: one sequence has no pairs of first positions. The device is
    waited for once.

    Args:
        layers: of each, the states of position 0 [B, D] and of all others [N, D].
        embedding_VD: the input embedding table.
    """
    found: dict[str, Tensor] = {
        "anisotropy/embedding": anisotropy(embedding_VD),
        "effective_rank/embedding": effective_rank(embedding_VD),
    }
    for layer, (first_BD, later_ND) in enumerate(layers):
        name = f"layer_{layer:02d}"
        found[f"anisotropy/{name}"] = anisotropy(later_ND)
        found[f"effective_rank/{name}"] = effective_rank(later_ND)
        found[f"anisotropy_first_position/{name}"] = anisotropy(first_BD)
    values = torch.stack(list(found.values())).tolist()
    rows, columns = layers[0][1].shape
    known = {
        "states": float(rows),
        "effective_rank/bound": float(max(0, min(rows - 1, columns))),
        "effective_rank/null": effective_rank_of_noise(rows, columns),
    }
    return {
        f"geometry/{key}": value
        for key, value in [*zip(found, values, strict=True), *known.items()]
        if value == value  # noqa: PLR0124 - NaN: not defined
    }
