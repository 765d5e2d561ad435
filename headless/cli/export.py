"""`headless export`: a checkpoint to a Hugging Face directory."""

import sys
from pathlib import Path
from typing import Any, Literal

from headless.cli.parsing import run
from headless.errors import HeadlessError


def export_model(
    checkpoint: Path,
    output: Path,
    head: Literal["auto", "calibrated", "tied", "trained"] = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    fit: Path | None = None,
    overwrite: bool = False,
) -> None:
    """A checkpoint to a Hugging Face directory, with tokenizer, generation config and model card.

    Args:
        checkpoint: a run directory (its last checkpoint), or a checkpoint in one.
        output: the directory to make.
        head: "trained" with cross-entropy; "calibrated": of a headless run, with log p(v), no
            training step; "tied": the input embeddings alone; "auto": whichever makes the run a
            language model.
        dtype: of the weights on disk.
        fit: a prepared dataset: fit a temperature and a scale of the head's bias to one half of its
            validation split, and report what that gains on the other half.
        overwrite: move an export that is there aside.

    Raises:
        HeadlessError: no checkpoint, no such head, an output that exists.
    """
    import torch

    from headless.downstream.export import check_output, export

    check_output(output, overwrite)
    calibration = None if fit is None else _fit(checkpoint, head, fit)
    facts = export(
        checkpoint,
        output,
        head=head,
        dtype=getattr(torch, dtype),
        calibration=calibration,
        overwrite=overwrite,
    )
    if calibration is not None:
        print(
            f"fitted: scores x {calibration.scale:.4f}, bias x {calibration.bias_scale:.4f}; on "
            f"{calibration.report_tokens:,} other tokens {calibration.nll_before:.4f} -> "
            f"{calibration.nll_after:.4f} nats",
            file=sys.stderr,
        )
    form = {
        "native": "the family's own class",
        "folded": "the family's own class, the head folded into its weights",
        "custom": "needs trust_remote_code=True (without it, the head's matrix alone)",
    }
    print(f"{output}: {facts['head']} head, {form[facts['head_form']]}")


def _fit(checkpoint: Path, head: Any, data: Path) -> Any:
    from headless.data.datamodule import TokenDataModule
    from headless.downstream.calibration import calibrate, collect
    from headless.training.language_model import choose_head
    from headless.training.module import PretrainingModule

    module = PretrainingModule.from_checkpoint(checkpoint)
    datamodule = TokenDataModule(
        data,
        sequence_length=module.sequence_length,
        batch_size=32,
        task=module.task,
    )
    if module.tokenizer_sha256 not in (None, datamodule.tokenizer_sha256):
        raise HeadlessError(
            f"{data} was made with another tokenizer than {checkpoint} was trained with: prepare "
            "the text with the run's own (headless prepare --tokenizer RUN/tokenizer)"
        )
    _, lm_head = choose_head(module, head)
    return calibrate(lm_head, collect(module.backbone, datamodule.validation_batches()))


def main(arguments: list[str]) -> None:
    """The command."""
    run(export_model, arguments, "export")
