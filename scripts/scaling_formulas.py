"""What a training step costs, on paper: the formulas of docs/scaling.md.

Shapes: N rows, D hidden size, V vocabulary, M unique targets, L layers, T sequence length.
"""

from dataclasses import dataclass

from headless.models.flops import scoring_flops


@dataclass(frozen=True)
class Model:
    """A GPT-NeoX of any size: MLPs four times as wide as the rest, biases, no tied head."""

    layers: int
    hidden: int
    heads: int
    vocab: int
    length: int

    @property
    def block_parameters(self) -> int:
        """L · (12 D² + 13 D): matrices, biases and norms of the blocks."""
        return self.layers * (12 * self.hidden**2 + 13 * self.hidden)

    def parameters(self, untied_head: bool) -> int:
        """Blocks, last norm, embedding table, and the head of an untied cross-entropy."""
        tables = 2 if untied_head else 1
        return self.block_parameters + 2 * self.hidden + tables * self.vocab * self.hidden

    def backbone_flops(self, rows: int) -> float:
        """6 N (12 L D² + L D (T + 1)): matrices, and causal attention without its masked half."""
        matrices = 12 * self.layers * self.hidden**2
        return 6.0 * rows * (matrices + self.layers * self.hidden * (self.length + 1))

    def unmasked_attention_flops(self, rows: int) -> float:
        """6 N L D (T - 1): the masked half of the attention scores, which counters count too."""
        return 6.0 * rows * self.layers * self.hidden * (self.length - 1)


def model_bytes(parameters: int) -> dict[str, int]:
    """float32 weights, their gradients, and AdamW's two moments."""
    return {
        "parameters": 4 * parameters,
        "gradients": 4 * parameters,
        "optimizer": 8 * parameters,
    }


def loss_bytes(rows: int, candidates: int, hidden: int, gathers: bool) -> int:
    """Eager float32 at its peak: logits, log-probabilities, gradient of the logits: 12 bytes each.

    A headless loss (temperature 1) holds besides the rows of the embedding table that it gathered.
    """
    return 12 * rows * candidates + (4 * hidden * candidates if gathers else 0)


def ddp_bytes(parameters: int, world: int) -> float:
    """What a device sends a step: a ring all-reduce of float32 gradients."""
    return 2 * (world - 1) / world * 4 * parameters


def fsdp_bytes(model: Model, parameters: int, world: int) -> float:
    """What a device sends a micro-batch: blocks gathered twice, the rest once, all reduced once."""
    share = (world - 1) / world
    return share * 4 * (2 * parameters + model.block_parameters)


# What the times below assume of a device; nothing here was measured on one.
FLOPS = 0.45 * 989e12  # 45 % of an H100's dense bf16 peak
WIRE = 50e9  # bytes a second that a device sends: 400 Gbit/s


def activation_bytes(model: Model, rows: int) -> int:
    """34 N D L: kept in half precision for the backward pass, fused attention, no recomputation.

    (Korthikanti et al. 2022, eq. 1 without the attention matrix and with dropout's masks.)
    """
    return 34 * rows * model.hidden * model.layers


def on_paper(
    model: Model, sequences: int, world: int, unique_here: int, unique_everywhere: int
) -> dict[str, dict[str, float]]:
    """What the formulas say, per device and step of one micro-batch, in units that one can read.

    Args:
        model: its sizes.
        sequences: of a micro-batch.
        world: devices.
        unique_here: M of a device's micro-batch.
        unique_everywhere: M of all devices'.
    """
    rows = sequences * model.length
    found = {}
    for name, count in (
        ("cross-entropy", model.vocab),
        ("headless", unique_here),
        ("headless, global negatives", unique_everywhere),
        ("headless, N x N", rows),
        ("headless, N x N, features gathered", rows * world),
    ):
        parameters = model.parameters(name == "cross-entropy")
        backbone = model.backbone_flops(rows)
        loss = scoring_flops(rows, count, model.hidden)
        gathers = "gathered" in name  # bf16 features to all, their gradients back
        features = 2 * (world - 1) * rows * model.hidden * 2.0 if gathers else 0.0
        states = sum(model_bytes(parameters).values())
        memory = states + 2 * parameters + activation_bytes(model, rows) + 12 * rows * count
        compute = (backbone + loss) / FLOPS
        reduce = ddp_bytes(parameters, world) / 2 / WIRE  # bf16 gradients
        hidden = min(reduce, compute * 2 / 3)  # behind the backward pass
        found[name] = {
            "parameters, million": parameters / 1e6,
            "candidates": count,
            "backbone, TFLOP": backbone / 1e12,
            "loss, TFLOP": loss / 1e12,
            "loss, share of FLOPs": loss / (loss + backbone),
            "states, GB": states / 1e9,
            "states, sharded, GB": states / world / 1e9,
            "activations, GB": activation_bytes(model, rows) / 1e9,
            "loss, GB": 12 * rows * count / 1e9,
            "memory under DDP, GB": memory / 1e9,
            "sent under DDP, GB": ddp_bytes(parameters, world) / 1e9,
            "sent under FSDP, GB": fsdp_bytes(model, parameters, world) / 1e9,
            "sent for negatives, GB": features / 1e9,
            "compute, ms": 1e3 * compute,
            "gradients in bf16, ms": 1e3 * reduce,
            "step, ms": 1e3 * (compute + reduce - hidden + features / WIRE),
        }
    return found
