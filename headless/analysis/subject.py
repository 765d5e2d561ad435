"""What is looked at, opened: a model with its text, and a run's checkpoints before the last."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

import headless
from headless.analysis.session import LONGEST, NO_HEAD, Subject, length_for, take_text
from headless.data.stream import open_dataset
from headless.data.tokenizer import load_tokenizer, same_ids
from headless.errors import HeadlessError
from headless.models.backbone import embedding_table
from headless.runs.directory import RunDirectory, open_run
from headless.runs.run import Run
from headless.training.checkpoint_io import find_checkpoint, is_run, run_of
from headless.training.first_weights import first_module, first_weights
from headless.training.hugging_face import language_model, unfold
from headless.training.module import PretrainingModule

FOLDED = (
    "the export folded it into other weights, and only the states are as they were trained: "
    "analyze the run for its head and its loss"
)


class OpenModel(Protocol):
    """What `headless.load` gives back."""

    model: Any
    tokenizer: Any
    place: str


def open_subject(
    model: "str | Path | Run | OpenModel",
    data: Path | None,
    tokens: int,
    length: int | None,
    split: str,
    device: str,
    trust_remote_code: bool,
) -> Subject:
    """A model with its text: `data`, or a run's own where it is there.

    Raises:
        HeadlessError: no such model, or data of another tokenizer.
    """
    place: Any = model
    if not hasattr(model, "place"):  # a path, or a run
        place = os.fspath(place)
    lm = headless.load(place, device=device, trust_remote_code=trust_remote_code)
    folded = unfold(lm.model)
    backbone: Any = lm.model.base_model
    trained = LONGEST
    run = None if lm.directory is None else RunDirectory(lm.directory)
    if run is not None and run.config.is_file():
        config = run.read_config()["data"]
        trained = int(config.get("sequence_length", trained))
        if data is None and os.path.isdir(config["path"]):
            data = Path(config["path"])
    positions = getattr(lm.model.config, "max_position_embeddings", None) or trained
    if length is not None and length > positions:
        raise HeadlessError(f"--length {length} is more than the model's {positions} positions")
    initial, beginning = None, ""
    if run is not None and run.config.is_file():
        module = PretrainingModule.from_checkpoint(find_checkpoint(lm.place))
        initial, beginning = first_weights(run, module)
    subject = Subject(
        lm.name,
        backbone if folded else lm.model,
        counts_V=lm.unigram_count_V,
        initial=initial,
        mask_token=getattr(lm.tokenizer, "mask_token_id", None) if lm.task == "masked" else None,
        bos=getattr(lm.tokenizer, "eos_token_id", None),
        beginning=beginning,
        has_head=lm.has_head and not folded,
        why_no_head=FOLDED if folded else NO_HEAD,
    )
    if data is None:
        return subject
    dataset = open_dataset(data)
    if dataset.manifest.vocab_size > len(embedding_table(lm.model)):
        raise HeadlessError(f"{data} has more token ids than {lm.place} has embeddings")
    if dataset.manifest.tokenizer_sha256 is None:
        if lm.tokenizer is not None:
            raise HeadlessError(f"{data} holds item ids, and {lm.place} was trained on text")
        subject = replace(subject, bos=dataset.manifest.eos_token_id)
    elif lm.tokenizer is None:
        raise HeadlessError(
            f"{lm.place} has no tokenizer, so that nothing shows whether the ids of {data} are its "
            "own: copy the files of its tokenizer into it (tokenizer.json, tokenizer_config.json)"
        )
    elif not same_ids(load_tokenizer(str(dataset.tokenizer_path)), lm.tokenizer):
        raise HeadlessError(
            f"{data} was made with another tokenizer than {lm.place}: prepare the text with the "
            "model's own (headless prepare --tokenizer …)"
        )
    length = length or length_for(lm.model, trained)
    return take_text(subject, dataset, data, tokens=tokens, length=length, split=split)


def before_training(place: str, subject: Subject) -> Subject | None:
    """A run's subject with the weights of step 0; None where they cannot be made again."""
    if not is_run(place):
        return None
    checkpoint = find_checkpoint(place)
    made = first_module(run_of(checkpoint), PretrainingModule.from_checkpoint(checkpoint))
    if made is None:
        return None
    model: Any = language_model(made)[1]
    device = next(subject.backbone.parameters()).device
    return replace(subject, model=model.to(device).eval())


def kept_checkpoints(place: str) -> tuple[dict[int, Path], int]:
    """A run's checkpoints before the last one by their step, and the step of the last.

    Raises:
        HeadlessError: not a run directory, or it kept none.
    """
    files = sorted(open_run(place).checkpoints.glob("step-*.ckpt"))
    kept = {int(path.stem.removeprefix("step-")): path for path in files}
    last = torch.load(find_checkpoint(place), map_location="cpu", weights_only=True, mmap=True)
    kept.pop(last["global_step"], None)
    if not kept:
        raise HeadlessError(
            f"{place} kept no checkpoint but the last: train with --checkpoint.keep true, or leave "
            "out --steps"
        )
    return kept, int(last["global_step"])
