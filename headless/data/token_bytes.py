"""How many bytes of text each token stands for, so that a part of a text has its own bytes."""

import json
import re
from typing import Any

import numpy as np

from headless.data.stream import TokenDataset
from headless.data.tokenizer import special_ids

BLANK = "▁"  # SentencePiece's
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte that has no token of its own
PIECE = 2**24  # tokens that are counted at a time


def token_bytes(tokenizer: Any, vocab_size: int) -> np.ndarray:
    """Bytes of UTF-8 text each id stands for: float64 [V]; special tokens and gaps have none.

    Exact for byte-level BPE. Elsewhere a token's spelling and its blank are counted, which is what
    the text had unless it was normalised.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    byte_level = any('"ByteLevel"' in json.dumps(backend[k]) for k in ("decoder", "pre_tokenizer"))
    inside = model.get("continuing_subword_prefix") or ""
    end = model.get("end_of_word_suffix") or ""

    def length(token: str) -> int:
        if byte_level:
            return len(token)  # a character stands for a byte
        if BYTE.fullmatch(token):
            return 1
        if model["type"] == "WordPiece":
            begins = not token.startswith(inside)
            return begins + len(token.removeprefix(inside).encode())
        text = token.replace(BLANK, " ")
        if end and text.endswith(end):
            text = text.removesuffix(end) + " "
        return len(text.encode())

    table_V = np.zeros(vocab_size)
    for token, id in tokenizer.get_vocab().items():
        if id < vocab_size:
            table_V[id] = length(token)
    for id, added in tokenizer.added_tokens_decoder.items():
        if id < vocab_size:
            text = added.content  # written as it is, or as the model writes its own tokens
            table_V[id] = len(text.encode()) if byte_level else length(text)
    table_V[[id for id in special_ids(tokenizer) if id < vocab_size]] = 0
    return table_V


def validation_bytes(dataset: TokenDataset, tokenizer: Any) -> np.ndarray:
    """`token_bytes`, scaled so that the whole validation split has the bytes that its text had.

    The scale of byte-level BPE is 1.
    """
    manifest = dataset.manifest
    table_V = token_bytes(tokenizer, manifest.vocab_size)
    table_V[manifest.eos_token_id] = 0
    tokens = dataset.split("validation").tokens
    count_V = np.zeros(len(table_V), dtype=np.int64)
    for begin in range(0, len(tokens), PIECE):
        count_V += np.bincount(tokens[begin : begin + PIECE], minlength=len(table_V))
    counted, true = float(count_V @ table_V), manifest.splits["validation"]["bytes"]
    return table_V * (true / counted) if counted else table_V
