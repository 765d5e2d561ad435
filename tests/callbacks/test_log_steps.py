"""Looks and checkpoints at log-spaced steps, whatever the batches of a step and over a resume."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headless.callbacks.periodic import Cadence, is_log_step
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit

STEPS = [0, 1, 2, 3, 4, 6, 8, 12]


def test_two_an_octave() -> None:
    assert [s for s in range(200) if is_log_step(s)] == [
        *STEPS[1:],
        16,
        24,
        32,
        48,
        64,
        96,
        128,
        192,
    ]
    assert [s for s in range(60) if is_log_step(s, 20)] == [
        *(1, 2, 3, 4, 6, 8, 12, 16, 20, 21, 22, 23, 24, 26, 28, 32, 36, 44, 48, 52)
    ]  # 24, 32, 48 are of both
    cadence = Cadence("log")
    assert [s for s in (0, 1, 1, 2, 2, 5, 6, 6) if cadence.due(s)] == [1, 2, 6]
    cadence.begin(8)
    assert not cadence.due(8)  # a run that goes on after it has looked there


def test_looks_and_checkpoints(run_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    options = ("--laboratory.enabled", "true", "--laboratory.every_n_steps", "log")
    options += ("--checkpoint.keep", "log", "--checkpoint.every_n_steps", "5")
    options += ("--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "2")
    fit(build(run_arguments("run", *options, "--trainer.max_steps", "5")))
    path = fit(build(run_arguments("run", *options, "--run.resume", "true")))
    looks = [p for p in read_metrics(path / "metrics.jsonl") if "geometry/states" in p]
    assert [p["progress/step"] for p in looks] == [0, 1, 2, 3, 4, 5, 6, 8, 12]  # 5: it ended there
    kept = sorted(file.name for file in (path / "checkpoints").glob("step-*.ckpt"))
    assert [int(name[5:13]) for name in kept] == [1, 2, 3, 4, 5, 6, 8, 10, 12]
    for point in looks:
        alphas = [v for k, v in point.items() if k.startswith("geometry/alpha_req/layer")]
        assert len(alphas) == len([k for k in point if k.startswith("geometry/anisotropy/layer")])
        assert all(alpha > point["geometry/alpha_req/null"] > 0 for alpha in alphas)


def test_not_below_one() -> None:
    with pytest.raises(ValueError, match="every_n_steps must be at least 1"):
        Cadence(0)
