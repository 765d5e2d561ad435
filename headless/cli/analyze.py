"""`headless analyze`: the inside of a language model as a page."""

import os
from pathlib import Path
from typing import Any, Literal

from headless.cli.parsing import run
from headless.errors import HeadlessError


def analyze(
    model: str,
    output: Path | None = None,
    data: Path | None = None,
    analyses: str | list[str] | None = None,
    preset: Literal["cheap", "full"] = "full",
    tokens: int = 65_536,
    length: int | None = None,
    split: Literal["train", "validation"] = "validation",
    steps: Literal["last", "all"] = "last",
    blocks: list[int] | None = None,
    umap: bool = False,
    random_twin: bool = True,
    seed: int = 0,
    device: str = "auto",
    trust_remote_code: bool = False,
    formats: list[Literal["svg", "png", "pdf"]] = ["svg", "png"],  # noqa: B006 - read only
    overwrite: bool = False,
) -> None:
    """Look inside any model: cones, spectra, outliers, helices, each with its number and null.

    Writes analysis.html, analysis.json and figures/ into a directory.

    Args:
        model: a run directory, a checkpoint, a Hugging Face directory or a hub name.
        output: the directory to write to; of a run its own directory's "analysis", from where
            `headless compare` takes it.
        data: a prepared dataset with the model's tokenizer; a run's own where it is there. Without
            any, the weights alone are looked at.
        analyses: some of them by name, as [cone, norms]; all of the preset by default.
        preset: "cheap" are the numbers that a run follows while it is trained (pretrain
            --laboratory): of the weights as they are and the residual stream, in a second or two.
        tokens: how many of the text are read.
        length: of the sequences; as long as the model was trained with, 512 at the most.
        split: of the dataset.
        steps: "all" repeats the analyses at every kept checkpoint of a run (pretrain
            --checkpoint.keep true) and draws each number over training.
        blocks: whose states are looked at, as [0, 5, 11]; all by default.
        umap: lay states out by UMAP as well, which takes minutes (pip install umap-learn).
        random_twin: ask every reported finding of the same shape with random weights as well (of a
            run: of its own before training): what holds there too says nothing about training. It
            adds about a third to the time.
        seed: of the null models.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        formats: of the figures beside the page.
        overwrite: replace an analysis that is there already.

    Raises:
        HeadlessError: no such model or analysis, data of another tokenizer, or an output that
            exists.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from headless.analysis.laboratory import analyze as run_analyses
    from headless.analysis.laboratory import select
    from headless.analysis.report import check_output, write_report
    from headless.analysis.session import Session, check_blocks
    from headless.analysis.tally import in_words, tally
    from headless.analysis.text import about
    from headless.analysis.training import followed, over_training
    from headless.analysis.twin import ask_twin

    if umap:
        from headless.analysis.places.latents import check_umap

        check_umap()
    _check_text(tokens, length)
    names = [analyses] if isinstance(analyses, str) else analyses
    chosen = select(names, preset)
    output = output or default_output(model)
    check_output(output, overwrite)
    subject = open_subject(model, data, tokens, length, split, device, trust_remote_code)
    check_blocks(subject.backbone, blocks)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[bool, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            inner = what == "states"
            if inner not in tasks:
                tasks[inner] = bars.add_task(what, total=total)
            bars.update(tasks[inner], description=what, completed=done, total=total)

        by_step = {}
        untrained = before_training(model, subject) if steps == "all" or random_twin else None
        if untrained is not None and steps == "all":
            session = Session(untrained, seed, report, preset, umap=umap, blocks=blocks)
            by_step[0] = followed(run_analyses(session, chosen)[0])
        for step, checkpoint in (earlier(model) if steps == "all" else {}).items():
            place = (str(checkpoint), data, tokens, length, split, device, trust_remote_code)
            session = Session(open_subject(*place), seed, report, preset, umap=umap, blocks=blocks)
            by_step[step] = followed(run_analyses(session, chosen)[0])
        session = Session(subject, seed, report, preset, umap=umap, blocks=blocks)
        findings, left_out = run_analyses(session, chosen)
        twin = ""
        if random_twin:
            findings, twin = ask_twin(findings, session, chosen, untrained)
        if steps == "all":
            last = last_step(model)
            findings = [over_training(by_step | {last: findings}), *findings]
        if not findings:
            reasons = (left_out[a.name] for a in chosen if a.name in left_out)
            reason = next(reasons, "nothing was asked for")
            raise HeadlessError(f"nothing could be analysed: {reason}")
        page = write_report(
            f"Inside {subject.name}",
            findings,
            output,
            about=about(model, subject, left_out),
            twin=twin,
            formats=formats,
            report=report,
        )
    for finding in findings:
        print(f"{finding.title}: {finding.answer or f'{len(finding.scalars)} numbers.'}")
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    if any(finding.claims for finding in findings):
        print(" ".join(in_words(tally(findings), twin)))
    print(f"page: {page}")


def default_output(model: str) -> Path:
    """Where a run's analysis belongs.

    Raises:
        HeadlessError: not a run directory.
    """
    from headless.runs.directory import RunDirectory

    run = RunDirectory(Path(model))
    if not run.config.is_file():
        raise HeadlessError(f"{model} is not a run directory: say where to write with --output DIR")
    return run.analysis


def before_training(model: str, subject: Any) -> Any:
    """The subject with the weights of step 0, where they can be made again; else None."""
    from headless.analysis.twin import first_subject
    from headless.training.loading import find_checkpoint, is_run, run_of
    from headless.training.module import PretrainingModule

    if not is_run(model):
        return None
    checkpoint = find_checkpoint(model)
    return first_subject(run_of(checkpoint), PretrainingModule.from_checkpoint(checkpoint), subject)


def earlier(model: str) -> dict[int, Path]:
    """The kept checkpoints of a run by their step, without the last one.

    Raises:
        HeadlessError: not a run directory, or it kept none.
    """
    from headless.runs.directory import open_run

    kept = open_run(model).checkpoints.glob("step-*.ckpt")
    found = {int(path.stem.removeprefix("step-")): path for path in sorted(kept)}
    found.pop(last_step(model), None)
    if not found:
        raise HeadlessError(
            f"{model} kept no checkpoint but the last: train with --checkpoint.keep true, or leave "
            "out --steps"
        )
    return found


def last_step(model: str) -> int:
    """The step of a run's last checkpoint."""
    import torch

    from headless.training.loading import find_checkpoint

    content = torch.load(find_checkpoint(model), map_location="cpu", weights_only=True, mmap=True)
    return int(content["global_step"])


def open_subject(
    model: str,
    data: Path | None,
    tokens: int,
    length: int | None,
    split: str,
    device: str,
    trust_remote_code: bool,
) -> Any:
    """A model with its text.

    Raises:
        HeadlessError: no such model, or data of another tokenizer.
    """
    from headless.analysis.session import Subject
    from headless.analysis.text import LONGEST, length_for, take_text
    from headless.data.stream import open_dataset
    from headless.data.tokenizer import load_tokenizer, same_ids
    from headless.downstream.loading import load
    from headless.models.backbone import embedding_table
    from headless.runs.directory import RunDirectory
    from headless.training.hugging_face import unfold

    lm = load(model, device=device, trust_remote_code=trust_remote_code)
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
    subject = Subject(
        lm.name,
        backbone if folded else lm.model,
        counts_V=lm.unigram_count_V,
        mask_token=getattr(lm.tokenizer, "mask_token_id", None) if lm.task == "masked" else None,
        bos=getattr(lm.tokenizer, "eos_token_id", None),
        has_head=lm.has_head and not folded,
    )
    if folded:
        subject.why_no_head = (
            "the export folded it into other weights, and only the states are as they were "
            "trained: analyze the run for its head and its loss"
        )
    if run is not None and run.config.is_file():
        _take_beginning(subject, run, model)
    if data is None:
        return subject
    dataset = open_dataset(data)
    if dataset.manifest.vocab_size > len(embedding_table(lm.model)):
        raise HeadlessError(f"{data} has more token ids than {model} has embeddings")
    if lm.tokenizer is None:
        raise HeadlessError(
            f"{model} has no tokenizer, so that nothing shows whether the ids of {data} are its "
            "own: copy the files of its tokenizer into it (tokenizer.json, tokenizer_config.json)"
        )
    if not same_ids(load_tokenizer(str(dataset.tokenizer_path)), lm.tokenizer):
        raise HeadlessError(
            f"{data} was made with another tokenizer than {model}: prepare the text with the "
            "model's own (headless prepare --tokenizer …)"
        )
    length = length or length_for(lm.model, trained)
    take_text(subject, dataset, data, tokens=tokens, length=length, split=split)
    return subject


def _take_beginning(subject: Any, run: Any, model: str) -> None:
    """Give a run's subject the weights before training, where they can be made again."""
    from headless.training.first_weights import first_weights
    from headless.training.loading import find_checkpoint
    from headless.training.module import PretrainingModule

    subject.initial, subject.beginning = first_weights(
        run, PretrainingModule.from_checkpoint(find_checkpoint(model))
    )


def _check_text(tokens: int, length: int | None) -> None:
    for option, value in (("tokens", tokens), ("length", length)):
        if value is not None and value < 1:
            raise HeadlessError(f"{option} must be at least 1, got {value}")


def main(arguments: list[str]) -> None:
    """The command."""
    run(analyze, arguments, "analyze")
