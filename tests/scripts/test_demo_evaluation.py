"""The demo's evaluation sets: what their rules promise, from a prepared text of our own."""

import json
import lzma
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headless.data.prepare import prepare

SCRIPT = Path("scripts/demo_evaluation.py")
VERSE = """KING JOHN.
I am the king, my lord, and thou art but a shadow of the crown.
He is gone with all the banners of the north, and they have sworn it.
The forest hears the horns of morning and the river answers slowly.
We were merry in the tavern till the watchman called the hour of sleep.

[Enter a Messenger.]

MESSENGER.
The banners of the north are at the gate, and in the forest there
are voices; send a captain to the river before the morning.
My lord and he is sworn to it.
"""


def make(data: Path, output: Path, *more: str) -> dict[str, list[dict[str, str]]]:
    command = [sys.executable, str(SCRIPT), str(output), "--data", str(data), *more]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in output.glob("*.jsonl")
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    for i in range(4):
        speakers = (VERSE.replace("gone", f"gone {word}") for word in "abcdefgh"[: 4 + i])
        (root / f"{i}.txt").write_text("\n".join(speakers))
    prepare([str(root)], root / "data", vocab_size=300, validation_fraction=0.3)
    return root / "data"


def test_what_the_rules_promise(data: Path, tmp_path: Path) -> None:
    tsv = tmp_path / "pairs.tsv.xz"
    with lzma.open(tsv, "wt") as file:
        file.writelines(f"simple\tThe king {i}\tsings\tsing\n" for i in range(9))
    sets = make(data, tmp_path / "a", "--items", "60", "--agreement", str(tsv), "--pairs", "5")
    assert sets == make(
        data, tmp_path / "b", "--items", "60", "--agreement", str(tsv), "--pairs", "5"
    )
    assert sets["last_words"]
    for item in sets["last_words"]:
        before, _, word = item["text"].rpartition(" ")
        assert 40 <= len(item["text"].split()) <= 60
        assert re.fullmatch(r"[A-Za-z]{4,}", word)
        assert word in re.findall(r"[A-Za-z]+", before)
    pairs = sets["minimal_pairs"]
    assert len(pairs) < 60  # all there are
    assert {pair["UID"] for pair in pairs} == {"agreement", "article_order"}
    assert len({pair["sentence_good"] for pair in pairs}) == len(pairs)
    for pair in pairs:
        good, bad = pair["sentence_good"].split(), pair["sentence_bad"].split()
        changed = [i for i, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b]
        if pair["UID"] == "agreement":
            assert len(changed) == 1
            assert good[changed[0] - 1].lower() in ("i", "thou", "he", "they", "we", "you")
            assert "My lord and he" not in pair["sentence_good"]
        else:
            first, second = changed
            assert second == first + 1
            assert good[first].lower() in ("the", "a")
            assert sorted(re.findall(r"\w+", pair["sentence_good"].lower())) == sorted(
                re.findall(r"\w+", pair["sentence_bad"].lower())
            )
    assert len(sets["subject_verb"]) == 5
    for pair in sets["subject_verb"]:
        assert pair["sentence_good"] == pair["sentence_bad"] + "s"
