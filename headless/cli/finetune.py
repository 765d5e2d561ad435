"""`headless finetune`: a classifier on labelled text, or (`--task lm-head`) a softmax head."""

import math
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from headless.cli.finetune_results import results, show
from headless.cli.parsing import run
from headless.errors import HeadlessError
from headless.files import finite, json_lines, new_directory, write_json, write_text

if TYPE_CHECKING:
    from headless.downstream.classification.run import Finetuning, SeedResult
    from headless.downstream.classification.tasks import TextTask

RESULTS = "results.json"


def finetune(
    model: str,
    task: str,
    output: Path,
    data: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    unlabelled: str | None = None,
    regression: bool = False,
    metrics: list[str] | None = None,
    validation: Path | None = None,
    test: Path | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    mode: Literal["full", "probe"] = "full",
    seeds: list[int] = [0],  # noqa: B006 - jsonargparse copies it
    epochs: int = 3,
    batch_size: int = 32,
    lr: float | None = None,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    schedule: Literal["constant", "linear", "cosine"] = "linear",
    balanced: Literal["none", "train", "batch"] = "none",
    max_length: int | None = None,
    pooling: Literal["auto", "first", "mean", "last"] = "auto",
    dropout: float = 0.1,
    gradient_clip: float = 1.0,
    precision: str = "32-true",
    accelerator: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fine-tune a model to classify, or to score, sentences or pairs (or --task lm-head).

    Args:
        model: a run, a checkpoint, a Hugging Face directory or a hub name.
        task: a GLUE or SuperGLUE task, xnli ("xnli:fr" for a language), a csv, tsv, jsonl or
            parquet file, the directory of a saved dataset, a datasets name ("name:config"); or
            lm-head, which has options of its own: headless finetune --task lm-head --help.
        output: the directory to make; it is there when all is done.
        data: where a named task's data is, instead of the hub: as for `task`.
        text_column: the text; "text" by default.
        text_pair_column: the second text of a pair.
        label_column: the class, or the number; "label" by default.
        group_column: examples with the same value there go to the same split.
        unlabelled: what stands in the label column where an example has no label, besides nothing;
            by default -1 where it can be no class and no number of the task; "none": no value.
        regression: labels are numbers to be predicted.
        metrics: accuracy, f1 (of the second class), macro_f1, matthews; spearman, pearson, rmse.
            The first one chooses the epoch; every other one that fits is scored, too.
        validation: a file with the validation split.
        test: a file with the test split.
        validation_fraction: cut from the training text where there is no validation split.
        test_fraction: cut, too, where there is neither a validation nor a test split.
        split_seed: decides what goes where: the same for every seed and model.
        mode: train every weight ("full") or a linear layer on the frozen backbone ("probe").
        seeds: train once with each, e.g. [1,2,3].
        epochs: the best one on the validation split is kept.
        batch_size: examples.
        lr: peak learning rate of AdamW; by default one that fits the size of the model, from 1e-5
            for the largest to 1e-3 for the smallest (BERT-base: 2e-5), and 1e-2 for a probe.
        weight_decay: of matrices and embeddings.
        warmup: share of the steps in which the rate rises.
        schedule: of the rate after that.
        balanced: give every class the same weight: by its frequency in the training text
            ("train") or in the batch ("batch": the paper).
        max_length: the most tokens of an example; by default the model's positions.
        pooling: "auto": the last token of decoders, the mean over the tokens of encoders.
        dropout: before the linear layer.
        gradient_clip: largest norm of a gradient.
        precision: 32-true, bf16-mixed, ...
        accelerator: auto, cpu, gpu, ...
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        overwrite: make the output anew; a fine-tuning that is there is moved aside.

    Returns:
        What results.json holds.

    Raises:
        HeadlessError: anything that a user can mend.
    """
    options = dict(locals())
    from headless.downstream.classification.model import save_classifier
    from headless.training.assembly import quiet_lightning

    quiet_lightning()
    if not seeds or len(set(seeds)) < len(seeds):
        raise HeadlessError(f"seeds must be different numbers, at least one, got {seeds}")
    with new_directory(
        output, option="--output", overwrite=overwrite, is_ours=_is_finetuning, kind="fine-tuning"
    ) as directory:
        finetuning = prepare(options)
        if lr is None:
            options["lr"] = finetuning.recipe.lr
            print(f"learning rate: {finetuning.recipe.lr:g} (--lr takes another)", file=sys.stderr)
        text = yaml.safe_dump(
            {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}, sort_keys=False
        )
        write_text(directory / "config.yaml", text)
        records, best = [], None
        for seed in seeds:
            result = _run_seed(finetuning, seed, directory)
            records.append(
                {"seed": seed, "best_epoch": result.best_epoch, "scores": finite(result.scores)}
            )
            if best is None or _quality(finetuning, result) > _quality(finetuning, best):
                best = result
        assert best is not None
        save_classifier(best.trained, directory / "model")
        found = results(finetuning, records, options) | {"model_seed": best.seed}
        write_json(directory / RESULTS, found)
    show(found, output)
    return found


def _is_finetuning(path: Path) -> bool:
    return (path / RESULTS).is_file()


def prepare(options: dict[str, Any]) -> "Finetuning":
    """The fine-tuning that the options of `finetune` describe: data read, model loaded.

    Raises:
        HeadlessError: see `finetune`.
    """
    from headless.downstream.classification.data import Source, read_task
    from headless.downstream.classification.module import Recipe
    from headless.downstream.classification.run import Finetuning
    from headless.downstream.loading import load

    recipe = Recipe(**{f.name: options[f.name] for f in fields(Recipe)})
    task = task_of(options)
    place = options["data"] or (options["task"] if task.dataset is None else None)
    if place is None:
        place = f"{task.dataset}:{task.config}" if task.config else str(task.dataset)
    chosen = {f.name: options[f.name] for f in fields(Source) if f.name != "data"}
    text = read_task(task, Source(place, **chosen))
    encoder = load(options["model"], head=None, trust_remote_code=options["trust_remote_code"])
    return Finetuning(encoder, task, text, recipe, options["max_length"])


def task_of(options: dict[str, Any]) -> "TextTask":
    """The named task, or one of the columns that are given.

    Raises:
        HeadlessError: a benchmark's task that fits no classifier.
    """
    from headless.downstream.classification.tasks import TextTask, find_task

    known = find_task(options["task"])
    task = known or TextTask(Path(options["task"]).stem, regression=options["regression"])
    given = {
        "text_column": options["text_column"],
        "pair_column": options["text_pair_column"],
        "label_column": options["label_column"],
        "metrics": tuple(options["metrics"] or ()),
    }
    return replace(task, **{name: value for name, value in given.items() if value})


def _run_seed(finetuning: "Finetuning", seed: int, output: Path) -> "SeedResult":
    from headless.runs.metrics import append_point

    directory = output / f"seed-{seed}"
    directory.mkdir()
    live = sys.stderr.isatty()

    def report(epoch: int, step: int, values: dict[str, float]) -> None:
        append_point(directory / "metrics.jsonl", {"epoch": epoch, "step": step, **values})
        if not live:
            shown = " ".join(f"{name} {value:.4f}" for name, value in values.items())
            print(f"seed {seed} epoch {epoch}: {shown}", file=sys.stderr, flush=True)

    result = finetuning.run(seed, directory, report, bar=live)
    write_text(directory / "predictions.jsonl", json_lines(_predictions(finetuning, result)))
    return result


def _quality(finetuning: "Finetuning", result: "SeedResult") -> float:
    """How good a seed is on validation: the higher the better."""
    main = finetuning.metrics[0]
    value = result.scores["validation"][main] * (-1 if main == "rmse" else 1)
    return -math.inf if math.isnan(value) else value


def _predictions(finetuning: "Finetuning", result: "SeedResult") -> list[dict[str, Any]]:
    """One object an example of the reported split."""
    examples, classes = finetuning.text.splits[finetuning.text.reported], finetuning.text.classes
    lines = []
    for i, outputs in enumerate(result.outputs):
        line = {"text": examples.texts[i], "label": examples.labels[i]}
        if examples.pairs is not None:
            line["pair"] = examples.pairs[i]
        if classes:
            shares = outputs.softmax(0).tolist()
            line["prediction"] = classes[int(outputs.argmax())]
            line["probabilities"] = dict(zip(classes, shares, strict=True))
        else:
            line["prediction"] = float(outputs[0])
        lines.append(line)
    return lines


def main(arguments: list[str]) -> None:
    """The command."""
    run(finetune, arguments, "finetune")
