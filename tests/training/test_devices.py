"""A machine with Apple's GPU, which has no float64, and machines without."""

import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.accelerators import mps as fabric_mps
from lightning.fabric.accelerators.mps import MPSAccelerator as FabricMPSAccelerator
from lightning.pytorch.accelerators import CPUAccelerator, MPSAccelerator
from transformers import GPT2Config, GPT2LMHeadModel

from headless.downstream.classification.training import Finetuning
from headless.downstream.loading import load
from headless.downstream.options import Recipe
from headless.errors import HeadlessError
from headless.progress import Display
from headless.training.assembly import build
from headless.training.devices import can_compile


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning takes this machine for one."""
    for accelerator in (MPSAccelerator, FabricMPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda *_: True))
    monkeypatch.setattr(fabric_mps, "_get_all_available_mps_gpus", lambda: [0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_run_is_made_on_the_cpu(mac, run_arguments) -> None:
    cli = build(run_arguments("run", "--trainer.accelerator", "auto"))
    assert isinstance(cli.trainer.accelerator, CPUAccelerator)


@pytest.mark.parametrize("name", ["mps", "gpu"])
def test_asked_for_by_name_it_is_refused(mac, run_arguments, name) -> None:
    with pytest.raises(HeadlessError, match=f"accelerator {name}: .* no float64.* take cpu"):
        build(run_arguments("run", "--trainer.accelerator", name))


def test_a_classifier_is_trained_on_the_cpu(mac, tmp_path) -> None:
    finetuning: Any = SimpleNamespace(recipe=Recipe())
    trainer = Finetuning._trainer(finetuning, tmp_path, Display(False))
    assert isinstance(trainer.accelerator, CPUAccelerator)


def test_a_model_that_is_read_is_not_put_there(tmp_path, run_arguments) -> None:
    """evaluate, analyze, generate and neighbors read their models so."""
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16)).save_pretrained(
        tmp_path / "model"
    )
    with pytest.raises(HeadlessError, match="'mps' cannot be used: .* no float64.* take cpu"):
        load(tmp_path / "model", device="mps")


PAGES = """
import os, resource, torch
from headless.training.devices import keep_freed_memory
for kept, own in ((True, {}), (False, {}), (True, {"MALLOC_ARENA_MAX": "4"})):
    if os.fork():  # a heap of its own for each, and one start of Python for all
        os.wait()
        continue
    os.environ.update(own)
    if kept:
        keep_freed_memory(torch.device("cpu"))
    for step in range(20):
        block = torch.ones(2**24)  # 64 MiB, freed when the next one is there
        if step == 12:  # the heap has grown to what two of them need
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(pages * resource.getpagesize() / 2**20, flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives them back")
def test_freed_tensors_are_kept_for_the_next_unless_the_user_decides() -> None:
    plain = {
        k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))
    }
    command = [sys.executable, "-c", PAGES]
    done = subprocess.run(
        command, env=plain | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    kept, given_back, users_own = map(float, done.stdout.split())
    assert kept < 16  # MiB of new pages in seven steps of 64 MiB
    assert given_back > 200
    assert users_own > 200


@pytest.mark.parametrize("missing", ["", "compiler", "header", "named compiler"])
def test_what_a_compiled_step_needs(tmp_path: Path, monkeypatch, missing: str) -> None:
    """Where Triton could not build what it loads its kernels with, nothing is compiled."""
    compiler, header = tmp_path / "gcc", tmp_path / "Python.h"
    if missing != "compiler":
        compiler.write_text("#!/bin/sh")
        compiler.chmod(0o755)
    if missing != "header":
        header.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_paths", lambda *_: {"include": str(tmp_path)})
    monkeypatch.delenv("CC", raising=False)
    if missing == "named compiler":
        monkeypatch.setenv("CC", "another")
    assert can_compile() == (missing == "")
