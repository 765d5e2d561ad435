"""A checkpoint as a Hugging Face directory that plain `from_pretrained` loads.

config.json model.safetensors       the weights, with the head in them
tokenizer.json tokenizer_config.json        none of a run on item ids
generation_config.json              where generation stops
modeling_headless.py                only where the family's class cannot hold the head
headless.json                       what this is, for headless commands
unigram_counts.safetensors          how often each token occurs in the training text
README.md                           the model card
SHA256SUMS                          of all files but the model card
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelCardData
from jinja2 import Template
from transformers import GenerationConfig

import headless
from headless.data.tokenizer import loads_plainly
from headless.downstream.tokenizers import complete_config, load_run_tokenizer
from headless.files import new_directory, refuse_to_lose, write_sums
from headless.isolation import isolated
from headless.models import modeling_headless
from headless.models.pretrained import without_bars
from headless.runs.directory import RunDirectory
from headless.training.checkpoint_io import find_checkpoint, run_of
from headless.training.hugging_face import (
    Converted,
    HeadName,
    choose_head,
    largest_error,
    to_hugging_face,
    transform_names,
)
from headless.training.module import PretrainingModule

DESCRIPTION = "headless.json"
UNIGRAM_FILE = "unigram_counts.safetensors"  # beside the weights
CODE = "modeling_headless.py"
OUTPUT: Any = {
    "option": "--output",
    "is_ours": lambda path: (path / DESCRIPTION).is_file(),
    "kind": "export of a run",
}


@isolated()
def export(
    checkpoint: str | Path,
    output: str | Path,
    head: HeadName = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    overwrite: bool = False,
) -> dict[str, Any]:
    """A checkpoint to a Hugging Face directory, with tokenizer, generation config and model card.

    Args:
        checkpoint: a run directory (its last checkpoint), or a checkpoint in one.
        output: the directory to make.
        head: "trained" with cross-entropy; "calibrated": of a headless run, with log p(v), no
            training step; "tied": the input embeddings alone; "auto": whichever makes the run a
            language model.
        dtype: of the weights on disk.
        overwrite: move an export that is there aside.

    Returns:
        What `headless.json` holds.
    """
    output = Path(output)
    refuse_to_lose(output, overwrite=overwrite, **OUTPUT)  # before the work
    path = find_checkpoint(checkpoint)
    run = run_of(path)
    module = PretrainingModule.from_checkpoint(path)
    kind, lm_head = choose_head(module, head)
    converted = to_hugging_face(module.backbone, lm_head, embedding_VD=module.embedding_VD)
    torch_dtype = getattr(torch, dtype)
    if torch_dtype != torch.float32:
        model: Any = converted.model.to(torch_dtype)
        error = largest_error(module.backbone, lm_head, model)
        converted = Converted(model, converted.form, error)
    tokenizer = load_run_tokenizer(run, module.tokenizer_sha256)
    if tokenizer is not None:
        tokenizer.model_max_length = module.sequence_length
    if (
        tokenizer is not None and module.task == "causal"
    ):  # what is generated follows the last token of a row
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    complete_config(converted.model, tokenizer)
    facts = _facts(run, module, kind, converted, torch_dtype)
    with new_directory(output, overwrite=overwrite, **OUTPUT) as directory:
        _write(directory, converted, tokenizer, module, facts)
    return facts


def _facts(
    run: RunDirectory,
    module: PretrainingModule,
    kind: str,
    converted: Converted,
    dtype: torch.dtype,
) -> dict[str, Any]:
    summary, step = run.read_summary(), module.checkpoint_step
    finished = summary.get("steps") == step
    config: Any = converted.model.config
    facts: dict[str, Any] = {
        "format": 1,
        "headless": headless.__version__,
        "run": run.path.name,
        "objective": module.objective.describe(),
        "head": kind,
        "head_form": converted.form,
        "largest_relative_logit_error": converted.error,
        "dtype": str(dtype).removeprefix("torch."),
        "task": module.task,
        "backbone": f"{config.model_type} {config.num_hidden_layers} x {module.hidden_size}",
        "parameters": sum(p.numel() for p in converted.model.parameters()),
        "step": step,
        "sequence_length": module.sequence_length,
        "tokenizer_sha256": module.tokenizer_sha256,
        "data": Path(str(run.read_config().get("data", {}).get("path", "unknown"))).name,
        "seed": summary.get("seed"),
        "commit": run.read_environment().get("commit"),
    }
    if converted.form == "folded" and module.task == "masked":
        facts["keep"] = transform_names(converted.model)
    if finished:  # the summary describes the end of the run
        facts["tokens"] = summary.get("tokens")
        if kind in ("calibrated", "trained"):  # with the head that was validated
            last = summary.get("last", {})
            facts["metrics"] = {k: v for k, v in last.items() if k.startswith("val/")}
    return facts


def _write(
    directory: Path, converted: Converted, tokenizer: Any, module: Any, facts: dict[str, Any]
) -> None:
    from safetensors.torch import save_file

    model: Any = converted.model
    if converted.form == "custom":
        kind = "AutoModelForCausalLM" if facts["task"] == "causal" else "AutoModelForMaskedLM"
        name = type(model).__name__
        model.config.auto_map = {kind: f"{CODE.removesuffix('.py')}.{name}"}
    if facts["task"] == "causal":
        model.generation_config = GenerationConfig(
            bos_token_id=model.config.bos_token_id,
            eos_token_id=model.config.eos_token_id,
            pad_token_id=model.config.pad_token_id,
        )
    with without_bars():
        model.save_pretrained(directory, safe_serialization=True)
    if converted.form == "custom":
        (directory / CODE).write_text(_code(type(model)), encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
        facts["tokenizer_class"] = (
            "AutoTokenizer" if loads_plainly(directory) else "PreTrainedTokenizerFast"
        )
    save_file({"unigram_counts": module.unigram_counts.cpu()}, directory / UNIGRAM_FILE)
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (directory / DESCRIPTION).write_text(text, encoding="utf-8")
    (directory / "README.md").write_text(_model_card(facts), encoding="utf-8")
    write_sums(directory)


def _model_card(facts: dict[str, Any]) -> str:
    kind = "text-generation" if facts["task"] == "causal" else "fill-mask"
    front = ModelCardData(
        library_name="transformers",
        pipeline_tag=kind if "tokenizer_class" in facts else "other",
        tags=["headless", facts["objective"].split(" ")[0]],
    )
    text = Path(__file__).with_name("model_card.jinja").read_text(encoding="utf-8")
    return Template(text).render(facts=facts, front=front.to_yaml())


def _code(model_class: type) -> str:
    """`modeling_headless.py` with the family's class, so that it needs no installed headless."""
    text = Path(str(modeling_headless.__file__)).read_text(encoding="utf-8")
    family = model_class.__mro__[1]
    maker = "causal_class" if model_class.__name__.endswith("CausalLM") else "masked_class"
    return (
        f"{text}\n\nfrom {family.__module__} import {family.__name__}  # noqa: E402\n\n"
        f"{model_class.__name__} = {maker}({family.__name__})\n"
    )
