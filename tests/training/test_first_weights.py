"""The weights before the first step, kept once."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

import headless.callbacks.checkpoint
from headless.training.assembly import build
from headless.training.first_weights import first_module, first_weights
from headless.training.module import PretrainingModule
from headless.training.pretrain import fit


def test_they_are_those_that_the_run_began_with(run_arguments: Callable[..., list[str]]) -> None:
    arguments = run_arguments("run", "--trainer.max_steps", "2", objective="CrossEntropy")
    cli = build(arguments)
    began = {name: value.clone() for name, value in cli.model.state_dict().items()}
    fit(cli)
    run = cli.run.directory
    kept = load_file(run.first_weights)
    counted = {name for name in began if name.endswith("unigram_counts")}  # of the text
    assert kept.keys() == began.keys()
    assert all(torch.equal(kept[name], began[name]) for name in kept.keys() - counted)
    module = PretrainingModule.from_checkpoint(run.last_checkpoint)
    backbone, words = first_weights(run, module)
    assert torch.equal(backbone.get_input_embeddings().weight, began["backbone.embed_in.weight"])
    assert words == "kept by the run before its first step"
    first = first_module(run, module)
    assert torch.equal(first.objective.weight_VD, began["objective.weight_VD"])
    assert not torch.equal(module.objective.weight_VD, began["objective.weight_VD"])

    before = run.first_weights.read_bytes()
    fit(build([*arguments, "--trainer.max_steps", "4", "--run.resume", "true"]))
    assert run.first_weights.read_bytes() == before


def test_those_of_a_large_model_are_not_kept(
    run_arguments: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headless.callbacks.checkpoint, "MOST_BYTES", 1000)
    cli = build(run_arguments("run", "--trainer.max_steps", "1"))
    fit(cli)
    run = cli.run.directory
    module = PretrainingModule.from_checkpoint(run.last_checkpoint)
    assert first_weights(run, module) == (None, "not known: the run has no first.safetensors")
    assert first_module(run, module) is None
