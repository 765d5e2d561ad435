"""Hugging Face tokenizers, ours and existing ones, and the bytes of their tokens.

The ids of tokenizer.json are the truth, and what is written in a text is text.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from headless.data.bpe import END_OF_TEXT, LETTERS
from headless.data.stream import TokenDataset
from headless.errors import HeadlessError, one_line

BLANK = "▁"  # SentencePiece's
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte that has no token of its own
PIECE = 2**24  # tokens that are counted at a time


def use_threads(num_workers: int) -> None:
    """Of the tokenizers library, which reads this once, at its first parallel call."""
    os.environ["RAYON_NUM_THREADS"] = str(num_workers)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"


def as_fast_tokenizer(tokenizer: Tokenizer) -> Any:
    """The Hugging Face object around a tokenizer that we trained."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.split_special_tokens = True  # see `open_tokenizer`
    return fast


def open_tokenizer(source: str, *, trust_remote_code: bool = False) -> Any:
    """An existing tokenizer: a directory, a tokenizer.json, or a hub name.

    The name of a special token inside a text is text, as it was where the training text was
    prepared; `encode(prompt, split_special_tokens=False)` reads it as the token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer: Any
    try:
        if Path(source).is_file():
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=source)
            if tokenizer.eos_token is None and END_OF_TEXT in tokenizer.get_vocab():
                tokenizer.add_special_tokens({"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT})
        else:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
            tokenizer = _as_in_file(tokenizer, source)
    except Exception as error:  # noqa: BLE001 - the library raises anything, from anywhere
        reason = one_line(error, 200)
        raise HeadlessError(f"no tokenizer can be loaded from {source!r}: {reason}") from error
    if end_of_document(tokenizer) is None:
        raise HeadlessError(
            f"the tokenizer in {source!r} has no eos_token: name the token that ends a document in "
            "its tokenizer_config.json"
        )
    tokenizer.split_special_tokens = True
    return tokenizer


def _as_in_file(tokenizer: Any, source: str) -> Any:
    """The tokenizer with the ids of its tokenizer.json: the class that tokenizer_config.json or the
    model's family names may put another pre-tokenizer or normaliser to the file's vocabulary."""
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import cached_file

    if type(tokenizer) is PreTrainedTokenizerFast or not getattr(tokenizer, "is_fast", False):
        return tokenizer  # made from the file, or there is none
    file = cached_file(source, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if file is None:
        return tokenizer
    if _pipeline(tokenizer.backend_tokenizer) == _pipeline(Tokenizer.from_file(file)):
        return tokenizer
    plain: Any = PreTrainedTokenizerFast.from_pretrained(source)
    plain.model_input_names = tokenizer.model_input_names  # a BERT tells the texts of a pair apart
    vocabulary = plain.get_vocab()
    for name, token in tokenizer.special_tokens_map.items():
        if getattr(plain, name, None) is None and str(token) in vocabulary:  # the class's default
            setattr(plain, name, token)
    return plain


def _pipeline(backend: Tokenizer) -> dict[str, Any]:
    """What decides which ids a text has."""
    content = json.loads(backend.to_str())
    return {part: content.get(part) for part in ("normalizer", "pre_tokenizer", "model", "decoder")}


def loses_nothing(tokenizer: Tokenizer) -> bool:
    """Whether any text comes back by construction: nothing is changed, and every byte is known."""
    content = json.loads(tokenizer.to_str())
    words, model = content["pre_tokenizer"] or {}, content["model"]
    *cuts, words = words.get("pretokenizers") or [words]
    return (
        content["normalizer"] is None
        and words.get("type") == (content["decoder"] or {}).get("type") == "ByteLevel"
        and not words["add_prefix_space"]
        and all((cut["type"], cut.get("behavior")) == ("Split", "Isolated") for cut in cuts)
        and model["type"] == "BPE"
        and set(LETTERS.values()) <= set(model["vocab"])
        and not any(model[part] for part in ("continuing_subword_prefix", "end_of_word_suffix"))
        and all(token["special"] for token in content["added_tokens"])
    )


def same_ids(a: Any, b: Any) -> bool:
    """Whether two tokenizers give every text the same ids."""
    if a.get_vocab() != b.get_vocab():
        return False
    if not (getattr(a, "is_fast", False) and getattr(b, "is_fast", False)):
        return True  # the vocabulary is all that can be compared
    return _pipeline(a.backend_tokenizer) == _pipeline(b.backend_tokenizer)


def loads_plainly(directory: Path) -> bool:
    """Whether a plain `AutoTokenizer.from_pretrained` gives the ids of the tokenizer.json there:
    for some families Transformers takes a class of its choice, whatever the directory says."""
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(directory)
    return _as_in_file(plain, str(directory)) is plain


def load_tokenizer(source: str) -> Any:
    """An existing fast tokenizer that does not cut documents; see `open_tokenizer`."""
    tokenizer = open_tokenizer(source)
    if not getattr(tokenizer, "is_fast", False):
        raise HeadlessError(
            f"the tokenizer in {source!r} is not a fast one: it has no tokenizer.json"
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def special_ids(tokenizer: Any) -> set[int]:
    """The ids that stand for no text."""
    added = tokenizer.added_tokens_decoder.items()
    return {id for id, token in added if token.special} | set(tokenizer.all_special_ids)


def add_mask_token(tokenizer: Any, mask_token: str) -> None:
    """Give a tokenizer a mask token if it has none; in a prompt that takes the blank before it
    along, as the first token of a word does."""
    if tokenizer.mask_token_id is not None:
        return
    present = tokenizer.get_vocab().get(mask_token)
    usable = special_ids(tokenizer) - {end_of_document(tokenizer)}
    if present is not None and present not in usable:
        raise HeadlessError(
            f"the mask token {mask_token!r} is a token of another use: choose another --mask_token"
        )
    token = AddedToken(mask_token, lstrip=True, normalized=False, special=True)
    tokenizer.add_special_tokens({"mask_token": token})


def end_of_document(tokenizer: Any) -> int | None:
    """The id that separates documents: EOS, or SEP where an encoder's tokenizer has no EOS."""
    return tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id


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
    """`token_bytes`, scaled so that the whole validation split has the bytes of its text: by 1 for
    byte-level BPE."""
    manifest = dataset.manifest
    table_V = token_bytes(tokenizer, manifest.vocab_size)
    table_V[manifest.eos_token_id] = 0
    tokens = dataset.split("validation").tokens
    count_V = np.zeros(len(table_V), dtype=np.int64)
    for begin in range(0, len(tokens), PIECE):
        count_V += np.bincount(tokens[begin : begin + PIECE], minlength=len(table_V))
    counted, true = float(count_V @ table_V), manifest.splits["validation"]["bytes"]
    return table_V * (true / counted) if counted else table_V
