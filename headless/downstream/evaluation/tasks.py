"""Tasks, `kind:source`, and their items: texts, last words, minimal pairs or questions."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from headless.data.documents import Documents
from headless.data.records import Record, read_records
from headless.data.stream import MANIFEST, open_dataset
from headless.data.text_files import describe
from headless.data.tokenizer import load_tokenizer
from headless.errors import HeadlessError, suggestion

KINDS = ("text", "lambada", "blimp", "choice", "catalogue", "harness")
MASKED_KINDS = ("blimp",)  # what a masked model can do


@dataclass(frozen=True)
class Task:
    """One of `KINDS`, and a file, a directory or a name."""

    kind: str
    source: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.source}"

    @property
    def name(self) -> str:
        """The source without its directories: a few words for tables."""
        return Path(self.source).name or self.source


Item = dict[str, Any]


@dataclass(frozen=True)
class Items:
    """The items of a task; `skipped` counts records that are none.

    text: `text`. lambada: `context`, `word`. blimp: `good`, `bad`, `subset`. choice: `query`,
    `choices` and the place of the right one, `gold`.
    """

    task: Task
    items: list[Item]
    skipped: int
    sha256: str


def parse_tasks(tasks: str | list[str]) -> list[Task]:
    """Tasks from "kind:source", several with commas between or as a list."""
    texts = [tasks] if isinstance(tasks, str) else tasks
    # A comma ends a task only where another kind follows: paths may hold commas.
    parts = [part for text in texts for part in re.split(r",\s*(?=[A-Za-z_]+:)", text)]
    parsed = [_parse(part.strip()) for part in parts if part.strip()]
    if not parsed:
        raise HeadlessError(f"name a task: --tasks KIND:SOURCE, kinds: {', '.join(KINDS)}")
    return list(dict.fromkeys(parsed))


def _parse(text: str) -> Task:
    kind, colon, source = text.partition(":")
    if kind not in KINDS:
        hint = suggestion(kind, KINDS, "kinds")
        raise HeadlessError(f"a task is written kind:source and {kind!r} is no kind; {hint}")
    if not colon or not source.strip():
        raise HeadlessError(f"the task {text!r} names no source: write {kind}:FILE")
    return Task(kind, source.strip())


def read_items(
    task: Task, *, limit: int | None = None, split: str | None = None, text_field: str = "text"
) -> Items:
    """Read at most `limit` items of a task that is not the harness's.

    `split` is that of a data set by name, or of a prepared data set ("validation" by default);
    `text_field` the field of a text's records.
    """
    items: Iterator[Item | None]
    if task.kind != "text":
        items = map(READERS[task.kind], read_records(task.source, split))
    elif (Path(task.source) / MANIFEST).is_file():
        items = _prepared_texts(Path(task.source), split or "validation")
    else:
        documents = Documents([task.source], text_field, split=split or "test")
        items = ({"text": text} for text in documents)
    read = list(islice(items, limit))
    usable = [item for item in read if item is not None]
    if not usable:
        raise HeadlessError(f"{task.source} is empty: there is nothing to evaluate for {task}")
    return Items(task, usable, len(read) - len(usable), digest(usable))


def describe_unread(task: Task, text_field: str) -> str | None:
    """A line on the files of a text task's directory that are not read."""
    if task.kind != "text" or (Path(task.source) / MANIFEST).is_file():
        return None
    entries = Documents([task.source], text_field).left_out()
    return describe(entries) if entries else None


def digest(values: Any) -> str:
    """sha256 of the items as they are scored."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _prepared_texts(path: Path, split: str) -> Iterator[Item]:
    """The documents of a prepared data set, decoded."""
    dataset = open_dataset(path)
    if split not in dataset.manifest.splits:
        raise HeadlessError(
            f"{path} has no split {split!r}: --split {', '.join(dataset.manifest.splits)}"
        )
    if dataset.manifest.tokenizer_sha256 is None:
        raise HeadlessError(
            f"{path} holds item ids, which are no text: name it as catalogue:{path}"
        )
    if dataset.manifest.inexact_share:
        raise HeadlessError(
            f"the tokenizer of {path} does not give its text back: name the text itself, text:FILE"
        )
    tokenizer = load_tokenizer(str(dataset.tokenizer_path))
    tokens = dataset.split(split)
    begins = [*dataset.documents(split).tolist(), len(tokens)]
    for begin, end in pairwise(begins):
        ids = tokens[begin : end - 1].tolist()  # without the end of the document
        yield {"text": tokenizer.decode(ids, clean_up_tokenization_spaces=False)}


def _last_word(record: Record) -> Item | None:
    """As lambada_openai cuts it: at the last blank. None where no word follows it."""
    *before, word = record.text("text").split(" ")
    return {"context": " ".join(before), "word": word} if word.strip() else None


def _pair(record: Record) -> Item:
    subset = record.fields.get("UID") or record.fields.get("field") or record.stem
    good, bad = record.text("sentence_good"), record.text("sentence_bad")
    return {"good": good, "bad": bad, "subset": str(subset)}


def _question(record: Record) -> Item:
    query = record.text("query", "question")
    choices = record.field("choices")
    if isinstance(choices, dict):  # ARC writes {"text": […], "label": […]}
        choices = choices.get("text")
    if not isinstance(choices, list) or len(choices) < 2:
        raise HeadlessError(f"{record.place}: choices must be a list of at least two texts")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise HeadlessError(f"{record.place}: each of the choices must be a text that is not blank")
    gold = record.field("gold", "answer")
    if isinstance(gold, str) and gold in choices:
        gold = choices.index(gold)
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(choices):
        raise HeadlessError(
            f"{record.place}: the right answer {gold!r} is out of range: give its place, 0 to "
            f"{len(choices) - 1}, or its text"
        )
    return {"query": query, "choices": choices, "gold": gold}


READERS: dict[str, Callable[[Record], Item | None]] = {
    "lambada": _last_word,
    "blimp": _pair,
    "choice": _question,
}
