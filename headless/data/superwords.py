"""SuperBPE (Liu et al. 2025, arXiv 2503.13423): merges that go on across blanks.

The first tokens are those of an ordinary BPE, which never merges across words. The merges after
them are counted in text that is split at numbers, runs of punctuation, line ends and runs of
blanks alone. The tokenizer splits like that too, and takes merges in their order, so that words
come before what is made of them.

The tokenizers library begins every training with characters. So each token of the first stage is
given to it as one, and what it merges is spelt again afterwards.
"""

import json
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from headless.data.bpe import END_OF_TEXT, SMALLEST
from headless.data.documents import in_batches
from headless.errors import HeadlessError

APART = r" ?\p{N}+| ?[^\s\p{L}\p{N}]{2,}|\s*[\r\n]+|\s+(?!\S)"  # is no part of a superword
LONGEST = 200  # tokens that training sees together: its time is quadratic in them
FIRST = 0x10000  # the characters that stand for tokens: none of these planes is a blank
MOST = 0x110000 - FIRST
SUPERWORD_BYTES = 100_000_000  # of text that is looked through: it takes memory for each
SPARE = 1.02  # of the merges that are asked for: some spell a token that is there already


def check_superwords(superwords_from: int, vocab_size: int, tokenizer: str | None) -> None:
    """Refuse a first stage of a tokenizer that is not trained, or one that leaves no second."""
    if tokenizer is not None:
        raise HeadlessError(
            "superwords_from is of a tokenizer that is trained: leave out tokenizer"
        )
    if not SMALLEST <= superwords_from < vocab_size:
        raise HeadlessError(
            f"superwords_from must be at least {SMALLEST} and below vocab_size {vocab_size}, got "
            f"{superwords_from}"
        )


def add_superwords(tokenizer: Tokenizer, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Go on merging, across blanks, until a vocabulary has `vocab_size` tokens.

    Args:
        tokenizer: of `headless.data.bpe.train_tokenizer`; its tokens keep their ids.
        texts: read once.
        vocab_size: with them; a short text gives fewer.
    """
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    merges = [(a, b) for a, b in model["merges"]]
    if len(vocabulary) > MOST:
        raise HeadlessError(f"superwords_from must be at most {MOST}, got {len(vocabulary)}")
    begun = _tokenizer(vocabulary, merges)
    spelt = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    wanted = round((vocab_size - len(vocabulary)) * SPARE)
    for a, b in _merges(begun, texts, len(spelt), wanted):
        if len(vocabulary) == vocab_size:
            break
        pair = tuple("".join(spelt[ord(letter) - FIRST] for letter in part) for part in (a, b))
        merges.append(pair)  # type: ignore[arg-type]
        vocabulary.setdefault("".join(pair), len(vocabulary))
    return _tokenizer(vocabulary, merges)


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    apart = pre_tokenizers.Split(Regex(APART), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([apart, letters])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def _merges(
    begun: Tokenizer, texts: Iterable[str], size: int, number: int
) -> list[tuple[str, str]]:
    """The next merges, of characters that stand for the first `size` tokens."""
    over_letters = Tokenizer(models.BPE())
    pieces = pre_tokenizers.FixedLength(length=LONGEST)
    over_letters.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pieces])
    trainer = trainers.BpeTrainer(
        vocab_size=size + number,
        initial_alphabet=[chr(FIRST + id) for id in range(size)],
        show_progress=False,
    )
    over_letters.train_from_iterator(_as_letters(begun, texts), trainer)
    return [(a, b) for a, b in json.loads(over_letters.to_str())["model"]["merges"]]


def _as_letters(begun: Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """Each text as a character a token, with a blank where no merge goes across."""
    begun.encode_special_tokens = True
    for batch in in_batches(texts):
        for found in begun.encode_batch(batch, add_special_tokens=False):
            letters = np.array(found.ids, dtype=np.uint32) + FIRST
            pieces = np.array(found.word_ids, dtype=np.int64)
            begins = np.flatnonzero(np.diff(pieces)) + 1
            spaced = np.insert(letters, begins, ord(" ")).astype("<u4")
            yield spaced.tobytes().decode("utf-32-le")
