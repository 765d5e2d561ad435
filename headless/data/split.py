"""Which documents are held out: a function of seed and texts, not of the order of files."""

import hashlib
from dataclasses import dataclass

import numpy as np

from headless.data.documents import Documents
from headless.errors import HeadlessError
from headless.progress import Report


@dataclass(frozen=True)
class Scan:
    """Size in bytes of every document, and a hash of its text."""

    sizes: np.ndarray  # int64 [documents]
    hashes: np.ndarray  # uint64 [documents]


def scan(documents: Documents, seed: int, report: Report) -> Scan:
    """The first pass over the text: there must be two documents."""
    if not -(2**63) <= seed < 2**63:
        raise HeadlessError(f"seed must fit into 64 bits, got {seed}")
    key = seed.to_bytes(8, "little", signed=True)
    sizes, hashes, done = [], [], 0
    for text in documents:
        raw = text.encode("utf-8")
        sizes.append(len(raw))
        digest = hashlib.blake2b(raw, digest_size=8, key=key).digest()
        hashes.append(int.from_bytes(digest, "little"))
        done += len(raw)
        report("reading", done, 0)
    if len(sizes) < 2:
        amount = "no text" if not sizes else "one document"
        raise HeadlessError(
            f"{', '.join(documents.inputs)}: {amount}, but a train and a validation split need two "
            "documents: give more files, or split a text with --document_separator"
        )
    return Scan(np.array(sizes, dtype=np.int64), np.array(hashes, dtype=np.uint64))


def choose_validation(scanned: Scan, fraction: float) -> np.ndarray:
    """Which documents are held out, bool [documents]: at least one, and not all.

    In the order of their hashes, documents are taken until they hold `fraction` of all bytes. The
    order is a function of seed and text alone, so files may come in any order, and copies of a
    text fall on the same side.
    """
    order = np.lexsort((np.arange(len(scanned.hashes)), scanned.hashes))
    reached = np.searchsorted(np.cumsum(scanned.sizes[order]), fraction * scanned.sizes.sum())
    last = scanned.hashes[order[min(int(reached), len(order) - 1)]]
    held_out = scanned.hashes <= last
    if held_out.all():
        held_out = scanned.hashes < scanned.hashes.max()  # training needs a document too
    if not held_out.any():
        raise HeadlessError("all documents hold the same text: there is nothing to hold out")
    return held_out
