"""Checkpoints that are whole or not there."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from headless.errors import HeadlessError
from headless.files import write_bytes


def check_checkpoint(path: Path) -> None:
    """Refuse a file that is cut off or no checkpoint at all.

    Raises:
        HeadlessError: names the file.
    """
    if not zipfile.is_zipfile(path):  # looks at the end of the file only
        raise HeadlessError(
            f"{path} is damaged or no checkpoint: take another one, or start anew with "
            "--run.overwrite true"
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside, flushes to the disk and renames: a kill or a full disk leaves the old file.

    Reads with `weights_only=True`: a checkpoint of ours holds tensors and plain values only.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Serialise in memory first, so that an error of the disk is an `OSError` that names it.

        Raises:
            OSError: the file could not be written; `path` is as it was.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(target, buffer.getbuffer())
