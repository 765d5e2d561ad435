"""A byte-level BPE tokenizer from text (Radford et al. 2019): every text round-trips.

The tokenizers library trains it, or gigatoken where it is installed, with the same merges.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from headless.data.documents import in_batches
from headless.errors import HeadlessError

END_OF_TEXT = "<|endoftext|>"
LARGEST = 10_000_000  # training takes memory for as many, whatever the text
SMALLEST = 257  # every byte and the end of a document
LONGEST_WORD = 1000  # bytes that training sees together: its time is quadratic in them
SEPARATOR = b"\xff"  # of documents in a file: no byte of UTF-8
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
_OTHERS = sorted({*range(256)} - {*_PRINTED})
#: how each byte is spelt in a token
LETTERS = {b: chr(b) for b in _PRINTED} | {b: chr(256 + i) for i, b in enumerate(_OTHERS)}


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, directory: Path | None = None
) -> Tokenizer:
    """Train byte-level BPE on texts, which are read once.

    The same texts in the same order give the same tokenizer. `vocab_size` is with the 256 bytes and
    `<|endoftext|>`; a short text gives fewer tokens. Where a text has no blanks for long (base64,
    DNA) it is learnt from in pieces. gigatoken needs a file of the texts, in `directory`.
    """
    if vocab_size > LARGEST:
        raise HeadlessError(f"vocab_size {vocab_size} is too large: at most {LARGEST}")
    if vocab_size < SMALLEST:
        raise HeadlessError(
            f"vocab_size {vocab_size} is too small: byte-level BPE needs at least {SMALLEST}"
        )
    try:
        from gigatoken import TextFileSource, train_bpe
        from gigatoken.gigatoken_rs import pretokenized_counts
    except ImportError:
        return _train(texts, vocab_size)
    with tempfile.TemporaryDirectory(dir=directory, prefix="text-") as place:
        file = Path(place) / "documents"
        if _write(texts, file, vocab_size, pretokenized_counts):
            source = TextFileSource([file], separator=SEPARATOR)
            with _silence():
                _, merges = train_bpe(source, vocab_size - 1, [])
            return _made_of(merges)
        return _train(_read(file), vocab_size)


def _train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = pre_tokenizers.FixedLength(length=LONGEST_WORD)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = words
    return tokenizer


def _made_of(merges: list[tuple[bytes, bytes]]) -> Tokenizer:
    """The tokenizer that the library would have made of these merges."""

    def spelt(part: bytes) -> str:
        return "".join(LETTERS[byte] for byte in part)

    pairs = [(spelt(a), spelt(b)) for a, b in merges]
    vocabulary = {END_OF_TEXT: 0}
    for token in (*sorted(LETTERS.values()), *map("".join, pairs)):
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def _write(texts: Iterable[str], file: Path, vocab_size: int, count: Callable[..., Any]) -> bool:
    """Write the texts into a file; whether gigatoken learns from it what the library would.

    It does not cut long words, and goes on when there is nothing left to merge, which cannot be as
    long as there are more words than tokens.
    """
    words: set[bytes] = set()
    longest = 0
    with open(file, "wb") as documents:
        for batch in in_batches(texts):
            content = b"".join(text.encode() + SEPARATOR for text in batch)
            documents.write(content)
            with _silence():
                found = [word for word, _ in count(content, SEPARATOR)]
            longest = max(longest, *map(len, found), 0)
            if len(words) <= vocab_size:
                words.update(found)
    return longest <= LONGEST_WORD and len(words) > vocab_size


def _read(file: Path) -> Iterator[str]:
    rest = b""
    with open(file, "rb") as documents:
        while part := documents.read(2**22):
            *whole, rest = (rest + part).split(SEPARATOR)
            yield from (raw.decode() for raw in whole)


@contextmanager
def _silence() -> Iterator[None]:
    """gigatoken tells standard output and error how it gets on."""
    kept = {}
    with open(os.devnull, "wb") as nothing:
        for number in (1, 2):
            with suppress(OSError):  # one that is closed
                kept[number] = os.dup(number)
                os.dup2(nothing.fileno(), number)
        try:
            yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
