"""Documents to token ids: with the tokenizers library, or many times faster with gigatoken.

Special tokens have no name inside a text: "<|endoftext|>" there is text.
"""

import json
from itertools import chain
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from headless.data.tokenizer import loses_nothing
from headless.errors import one_line

RENEWED = 32_000_000  # characters after which the caches of gigatoken are thrown away
CHECKED_FIRST, CHECKED = 300_000, 20_000  # characters that both libraries encode, of a batch
CHECKED_DOCUMENT = 5_000  # of them of one document
PROBE = (
    "naïve  façade\r\n\t don't I'LL we've 1,234.5 ٣٤ x²½ 日本語の文、한국어 Ελληνικά עברית हिन्दी "
    "🙂👍🏽 e\u0301 \u00a0\u3000\u2028 __init__(self) ==> https://a.b/?c=d&e  \n\n  \x00\x7f end   "
)


class UnfitError(Exception):
    """Why gigatoken cannot encode for a tokenizer."""


class Ids(NamedTuple):
    """Documents as token ids, one after the other."""

    ids: np.ndarray  # of any integer type
    lengths: np.ndarray  # int64, how many ids each document has

    def split(self) -> list[np.ndarray]:
        """The ids of each document."""
        return np.split(self.ids, np.cumsum(self.lengths)[:-1])


class Encoder:
    """Encodes with the tokenizers library."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        self._may_lose = not loses_nothing(tokenizer)

    def __call__(self, texts: list[str]) -> Ids:
        pieces = [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        return Ids(np.fromiter(chain.from_iterable(pieces), dtype=np.int64), lengths)

    def exact(self, texts: list[str], found: Ids) -> np.ndarray:
        """Whether the ids of each text give it back: bool."""
        if not self._may_lose:
            return np.ones(len(texts), dtype=bool)
        pieces = [ids.tolist() for ids in found.split()]
        back = self.tokenizer.decode_batch(pieces, skip_special_tokens=False)
        return np.fromiter(map(str.__eq__, back, texts), dtype=bool, count=len(texts))


class FastEncoder(Encoder):
    """Encodes with gigatoken, where it is installed and knows such a tokenizer: else `UnfitError`.

    Nothing is taken on trust: of every batch the tokenizers library encodes a sample too, of the
    first a larger one, and different ids make this encoder unfit, then or later. gigatoken keeps
    what it has encoded, up to ten times as much as there was of text, so that it is made anew from
    time to time.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        content = json.loads(tokenizer.to_str())
        added = content["added_tokens"]
        content["added_tokens"] = [token for token in added if not token["special"]]
        self._content = json.dumps(content)
        self._renew()
        self._to_check = CHECKED_FIRST
        names = [PROBE, *(f"a {token['content']} b{token['content']}c" for token in added)]
        self._compare(names, self._encode(names).split())

    def _renew(self) -> None:
        self._characters = 0
        try:
            import gigatoken

            self._fast = gigatoken.Tokenizer.from_json(self._content)
        except ImportError as error:
            raise UnfitError("gigatoken, which is many times faster, is not installed") from error
        except Exception as error:  # noqa: BLE001 - whatever it is, there is another way
            reason = str(error).partition("\n")[0]
            raise UnfitError(f"gigatoken does not take this tokenizer ({reason})") from error

    def __call__(self, texts: list[str]) -> Ids:
        if self._characters >= RENEWED:
            self._renew()
        found = self._encode(texts)
        characters = sum(map(len, texts))
        self._characters += characters
        begins = np.cumsum(found.lengths) - found.lengths
        chosen = range(0, len(texts), max(1, characters // self._to_check))
        self._to_check = CHECKED
        pieces = [texts[i][:CHECKED_DOCUMENT] for i in chosen]
        self._compare(
            pieces,
            [
                found.ids[begins[i] : begins[i] + found.lengths[i]]
                if piece == texts[i]
                else self._encode([piece]).ids
                for i, piece in zip(chosen, pieces, strict=True)
            ],
        )
        return found

    def _encode(self, texts: list[str]) -> Ids:
        try:
            import awkward

            found = self._fast.encode_batch(texts)
            return Ids(awkward.flatten(found).to_numpy(), awkward.num(found).to_numpy())
        except Exception as error:  # noqa: BLE001 - likewise
            raise UnfitError(f"gigatoken fails ({one_line(error, 200)})") from error

    def _compare(self, texts: list[str], found: list[np.ndarray]) -> None:
        for text, ours, theirs in zip(texts, found, super().__call__(texts).split(), strict=True):
            if not np.array_equal(ours, theirs):
                begin = text[:40]
                raise UnfitError(
                    f"gigatoken has other ids for {begin!r} than the tokenizers library"
                )
