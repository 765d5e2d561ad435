"""Which task: the columns, classes, metrics and splits of GLUE, SuperGLUE and XNLI.

Sources: Wang et al. 2018 (GLUE) and 2019 (SuperGLUE), Conneau et al. 2018 (XNLI); columns and class
names as in the `datasets` that are named here.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches

from headless.errors import HeadlessError

GLUE, SUPERGLUE, XNLI = "nyu-mll/glue", "aps/super_glue", "facebook/xnli"
ENTAILMENT = ("entailment", "not_entailment")
INFERENCE = ("entailment", "neutral", "contradiction")
LEFT_OUT = {
    "copa": "multiple choice",
    "multirc": "several answers a question",
    "record": "extraction",
    "wsc": "spans",
    "axb": "no training text",
    "axg": "no training text",
    "ax": "no training text",
}


@dataclass(frozen=True)
class TextTask:
    """A classification or regression task on sentences or pairs of sentences.

    Args:
        name: for tables.
        text_column: the first text; several columns, joined by ": ", where they are separated by +.
        pair_column: the second text, if there is one.
        label_column: the class, or the number.
        classes: their names in the order of the data's numbers; empty where the training split
            tells.
        metrics: what is scored; the first chooses the epoch. Empty: what suits the labels.
        regression: the labels are numbers.
        dataset: a `datasets` name.
        config: of that dataset.
        validation: its split to choose by; None: the first of the usual names.
        also: another split that is scored with the reported one.
        test: its split to report; None: there is none with labels.
    """

    name: str
    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    classes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    regression: bool = False
    dataset: str | None = None
    config: str | None = None
    validation: str | None = None
    also: str | None = None
    test: str | None = "test"


def _glue(name: str, text: str, pair: str | None, classes: tuple[str, ...], *metrics: str,
          validation: str = "validation", also: str | None = None) -> TextTask:  # fmt: skip
    return TextTask(
        name,
        text,
        pair,
        "label",
        classes,
        metrics or ("accuracy",),
        regression=not classes,
        dataset=GLUE,
        config=name,
        validation=validation,
        also=also,
        test=None,  # its labels are kept secret
    )


def _superglue(name: str, text: str, pair: str, classes: tuple[str, ...], *metrics: str,
               config: str | None = None) -> TextTask:  # fmt: skip
    found = _glue(name, text, pair, classes, *metrics)
    return replace(found, dataset=SUPERGLUE, config=config or name)


SAME = ("not_equivalent", "equivalent"), ("not_duplicate", "duplicate")
TASKS = {
    task.name: task
    for task in (
        _glue("cola", "sentence", None, ("unacceptable", "acceptable"), "matthews", "accuracy"),
        _glue("sst2", "sentence", None, ("negative", "positive")),
        _glue("mrpc", "sentence1", "sentence2", SAME[0], "accuracy", "f1"),
        _glue("qqp", "question1", "question2", SAME[1], "accuracy", "f1"),
        _glue("stsb", "sentence1", "sentence2", (), "spearman", "pearson"),
        _glue(
            "mnli",
            "premise",
            "hypothesis",
            INFERENCE,
            validation="validation_matched",
            also="validation_mismatched",
        ),
        _glue("qnli", "question", "sentence", ENTAILMENT),
        _glue("rte", "sentence1", "sentence2", ENTAILMENT),
        _glue("wnli", "sentence1", "sentence2", ("not_entailment", "entailment")),
        _superglue("boolq", "question", "passage", ("False", "True")),
        _superglue(
            "cb",
            "premise",
            "hypothesis",
            ("entailment", "contradiction", "neutral"),
            "accuracy",
            "macro_f1",
        ),
        _superglue("superglue-rte", "premise", "hypothesis", ENTAILMENT, config="rte"),
        # Which word is meant is said before the first sentence.
        _superglue("wic", "word+sentence1", "sentence2", ("False", "True")),
        TextTask(
            "xnli",
            "premise",
            "hypothesis",
            classes=INFERENCE,
            metrics=("accuracy",),
            dataset=XNLI,
            config="en",
            validation="validation",
        ),
    )
}


def find_task(name: str) -> TextTask | None:
    """A task of the table by its name, "name:config" for another config; None: not in the table.

    Raises:
        HeadlessError: a benchmark's task that no classifier of sentences or pairs can do.
    """
    base, _, config = name.partition(":")
    if base in LEFT_OUT:
        raise HeadlessError(
            f"{base} does not fit a classifier of sentences or pairs ({LEFT_OUT[base]}); "
            f"left out are {', '.join(LEFT_OUT)}; there are {', '.join(TASKS)}"
        )
    if base not in TASKS:
        return None
    return replace(TASKS[base], config=config) if config else TASKS[base]


def suggestion(name: str, known: list[str], kind: str) -> str:
    """The end of a complaint: the nearest known name, or all of them."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{kind}: {', '.join(known)}"
