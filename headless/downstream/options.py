"""Options of verbs and of their commands. Nothing heavy is imported: wrong ones fail at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headless.errors import HeadlessError
from headless.files import write_text

Head = Literal["auto", "calibrated", "tied", "trained"]


def check_output_file(output: str | Path | None, overwrite: bool) -> None:
    """Refuse an output that is a directory, or a file that is not to be replaced."""
    if output is None:
        return
    if Path(output).is_dir():
        raise HeadlessError(f"{output} is a directory: --output names a file")
    if Path(output).exists() and not overwrite:
        raise HeadlessError(
            f"{output} exists: replace it with --overwrite true, or give another --output"
        )


def check_at_least_1(**counts: int | None) -> None:
    """Refuse counts below 1; None is no count."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise HeadlessError(f"{name} must be at least 1, got {value}")


def write_output(output: str | Path | None, text: str) -> None:
    """Write results to a file, if there is to be one."""
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(output), text)


@dataclass(frozen=True)
class Source:
    """Where the examples of a classification are.

    Args:
        data: where a named task's data is, instead of the hub: as for `task`.
        text_column: the text; "text" by default.
        text_pair_column: the second text of a pair.
        label_column: the class, or the number; "label" by default.
        group_column: examples with the same value there go to the same split.
        unlabelled: the label, besides an empty one, of examples that have none; by default -1 where
            the classes have names; "none": no value.
        regression: labels are numbers to be predicted.
        metrics: accuracy, f1 (of the second class), macro_f1, matthews; spearman, pearson, rmse.
            The first one chooses the epoch; all that fit are scored.
        validation: a file with the validation split.
        test: a file with the test split.
        validation_fraction: cut from the training text where there is no validation split.
        test_fraction: cut, too, where there is neither a validation nor a test split.
        split_seed: of these cuts.
    """

    data: str | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    unlabelled: str | None = None
    regression: bool = False
    metrics: list[str] | None = None
    validation: Path | None = None
    test: Path | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1 or not 0 <= self.test_fraction < 1:
            raise HeadlessError("validation_fraction and test_fraction must lie between 0 and 1")
        if self.validation_fraction + self.test_fraction >= 1:
            raise HeadlessError("validation_fraction + test_fraction leave nothing to train on")


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Args:
        mode: train every weight ("full") or a linear layer on the frozen backbone ("probe").
        epochs: the best one on the validation split is kept.
        batch_size: examples.
        lr: peak learning rate of AdamW; by default by the model's size, from 1e-5 for the largest
            to 1e-3 for the smallest (BERT-base: 2e-5), and 1e-2 for a probe.
        weight_decay: of matrices and embeddings.
        warmup: share of the steps in which the rate rises.
        schedule: of the rate after that.
        balanced: "batch" gives every class of a batch the same weight (the paper).
        max_length: the most tokens of an example; by default the model's positions.
        pooling: "auto": the last token of decoders, the mean over the tokens of encoders.
        dropout: before the linear layer.
        gradient_clip: largest norm of a gradient.
        precision: 32-true, bf16-mixed, ...
        accelerator: auto, cpu, gpu, ...
    """

    mode: Literal["full", "probe"] = "full"
    epochs: int = 3
    batch_size: int = 32
    lr: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    balanced: Literal["none", "batch"] = "none"
    max_length: int | None = None
    pooling: Literal["auto", "first", "mean", "last"] = "auto"
    dropout: float = 0.1
    gradient_clip: float = 1.0
    precision: str = "32-true"
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        check_at_least_1(epochs=self.epochs, batch_size=self.batch_size)
        if not 0 <= self.dropout < 1 or not 0 <= self.warmup < 1:
            raise HeadlessError("dropout and warmup must lie in [0, 1)")
        if not self.gradient_clip > 0:
            raise HeadlessError(f"gradient_clip must be positive, got {self.gradient_clip}")


@dataclass(frozen=True)
class FinetuneOptions:
    """Fine-tune a model to classify, or to score, sentences or pairs (or --task lm-head).

    Args:
        model: a run, a checkpoint, a Hugging Face directory or a hub name.
        task: a GLUE or SuperGLUE task, xnli ("xnli:fr" for a language), a csv, tsv, jsonl or
            parquet file, the directory of a saved dataset, a datasets name ("name:config"); or
            lm-head, which has options of its own: headless finetune --task lm-head --help.
        output: the directory to make, which appears when all is done.
        seeds: train once with each, e.g. [1,2,3].
        trust_remote_code: run the Python file that comes with a Hugging Face directory.
        overwrite: move an existing fine-tuning aside.
    """

    model: str
    task: str
    output: Path
    seeds: list[int] = field(default_factory=lambda: [0])
    trust_remote_code: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise HeadlessError(
                f"seeds must be different numbers, at least one, got {list(self.seeds)}"
            )
