"""Every arm of the shipped sweeps makes a run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headless.progress import Display
from headless.sweeps.arms import find_arms
from headless.sweeps.config import read_sweep

CONFIGS = sorted(Path("configs/sweep").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_all_arms_build(path: Path, dataset: Path, tmp_path: Path) -> None:
    assert path.read_text().startswith(f"# headless sweep --config {path}\n")
    config = read_sweep(path)
    for settings in (
        *(s for axis in config.vary.values() for s in axis.values()),
        *config.arms.values(),
    ):
        settings.pop("data.path", None)  # prepared with other vocabularies
    base = config.base if isinstance(config.base, dict) else {"parts": [config.base]}
    data = {**base.get("data", {}), "path": str(dataset)}
    trainer = {**base.get("trainer", {}), "accelerator": "cpu"}
    base = {**base, "data": data, "trainer": trainer}
    config = replace(config, root=tmp_path, base=base, budgets=["equal_tokens"])
    config.write_base()
    with torch.device("meta"):  # shapes without memory
        arms = find_arms(config, Display(False))
    assert len(arms) >= 3
    assert all(0 < arm.warmup_steps < arm.steps for arm in arms.values())
