"""The split: by bytes, by whole documents, whatever the order of the files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.data.documents import Documents
from headless.data.prepare import Scan, choose_validation, scan
from headless.errors import HeadlessError

documents = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 1000)), min_size=2, max_size=80)


def found(pairs: list[tuple[int, int]]) -> Scan:
    """A scan of documents with these hashes; equal hashes have equal sizes, as texts do."""
    size_of = dict(pairs)
    hashes = [h for h, _ in pairs]
    return Scan(np.array([size_of[h] for h in hashes]), np.array(hashes, dtype=np.uint64))


@given(pairs=documents, fraction=st.floats(0.001, 0.999), draw=st.randoms())
def test_the_split_is_by_bytes_and_by_text(
    pairs: list[tuple[int, int]], fraction: float, draw: object
) -> None:
    scanned = found(pairs)
    if len(set(scanned.hashes.tolist())) < 2:
        with pytest.raises(HeadlessError, match="all documents hold the same text"):
            choose_validation(scanned, fraction)
        return
    held_out = choose_validation(scanned, fraction)
    assert held_out.any()
    assert not held_out.all()
    sides: dict[int, set[bool]] = {}
    for key, side in zip(scanned.hashes.tolist(), held_out.tolist(), strict=True):
        sides.setdefault(key, set()).add(side)
    assert all(len(side) == 1 for side in sides.values())  # copies of a text stay together
    # One text less and the fraction would not be reached, unless training needs that text.
    last = scanned.hashes[held_out].max()
    before = scanned.sizes[scanned.hashes < last].sum()
    assert before < fraction * scanned.sizes.sum()
    reached = scanned.sizes[held_out].sum() >= fraction * scanned.sizes.sum()
    assert reached or len(set(scanned.hashes[~held_out].tolist())) == 1
    order = list(range(len(pairs)))
    draw.shuffle(order)  # type: ignore[attr-defined]
    shuffled = Scan(scanned.sizes[order], scanned.hashes[order])
    assert np.array_equal(choose_validation(shuffled, fraction), held_out[order])


def test_a_scan_weighs_texts_in_bytes_and_tells_them_apart(tmp_path: Path) -> None:
    texts = ["naïve", "日本", "naïve", "x"]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text)
    heard: list[tuple[str, int, int]] = []
    scanned = scan(Documents([str(tmp_path)]), 0, lambda *report: heard.append(report))
    assert scanned.sizes.tolist() == [6, 6, 6, 1]
    assert scanned.hashes[0] == scanned.hashes[2]
    assert len(set(scanned.hashes.tolist())) == 3
    assert heard[-1] == ("reading", 19, 0)
    other = scan(Documents([str(tmp_path)]), 1, lambda *report: None)
    assert not np.array_equal(other.hashes, scanned.hashes)
    with pytest.raises(HeadlessError, match="seed must fit into 64 bits"):
        scan(Documents([str(tmp_path)]), 2**63, lambda *report: None)


def test_two_documents_are_the_least(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(HeadlessError, match="no text, but a train and a validation split need two"):
        scan(Documents([str(tmp_path)]), 0, lambda *report: None)
    (tmp_path / "one.txt").write_text("one\n\nand two")
    with pytest.raises(HeadlessError, match="one document, .* --document_separator"):
        scan(Documents([str(tmp_path)]), 0, lambda *report: None)
    scan(Documents([str(tmp_path)], separator="\n\n"), 0, lambda *report: None)
