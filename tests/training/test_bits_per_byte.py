"""Bits per byte are of the text that was scored, whatever part of the split that is."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.data.prepare import prepare
from headless.data.stream import open_dataset
from headless.runs.metrics import read_metrics
from headless.training.assembly import build
from headless.training.pretrain import fit

WORDS = "the king loves an old ship while a quiet garden fears every second storm".split()
CJK = "国王爱着大海，女王害怕风暴。孩子们在花园里看见了玫瑰和幽灵。"
LIMIT, BATCH, T = 3, 4, 16


@pytest.fixture(scope="module")
def two_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of ASCII, then documents of CJK, in the text and in its validation split."""
    text = tmp_path_factory.mktemp("text")
    for i in range(8):
        words = random.Random(i).choices(WORDS, k=120)
        (text / f"{i:02d}.txt").write_text(" ".join(words))
        (text / f"{i + 8:02d}.txt").write_text(CJK[i:] + CJK * 20)
    output = tmp_path_factory.mktemp("prepared") / "data"
    prepare([str(text)], output, vocab_size=400, validation_fraction=0.5)
    return output


@pytest.mark.parametrize("limit", [LIMIT, None], ids=["a part", "the whole split"])
def test_the_bytes_are_those_of_the_scored_text(
    run_arguments: Callable[..., list[str]], two_scripts: Path, tmp_path: Path, limit: int | None
) -> None:
    more = (
        *("--data.path", str(two_scripts), "--data.batch_size", str(BATCH)),
        *("--trainer.max_steps", "1", "--trainer.val_check_interval", "1"),
        *("--laboratory.enabled", "false"),
        *(() if limit is None else ("--trainer.limit_val_batches", str(limit))),
    )
    cli = build(run_arguments("run", *more, objective="CrossEntropy"))
    fit(cli)
    (point,) = [p for p in read_metrics(tmp_path / "runs/run/metrics.jsonl") if "val/nll" in p]
    data = open_dataset(two_scripts)
    ids = data.split("validation")[:]
    tokenizer = cli.datamodule.tokenizer
    first = len(tokenizer.decode(ids[:1]).encode())  # nothing predicts it
    scored = len(ids) - 1
    size = data.manifest.splits["validation"]["bytes"] - first
    if limit is not None:
        scored = limit * BATCH * T
        text = tokenizer.decode(ids[1 : scored + 1], skip_special_tokens=True)
        assert text.isascii()
        size = len(text)
        share = data.manifest.splits["validation"]["bytes"] / len(ids) * scored
        assert not 0.9 < size / share < 1.1  # the split's mean would be another number
    expected = point["val/nll"] * scored / math.log(2) / size
    assert point["val/bits_per_byte"] == pytest.approx(expected, rel=1e-6)
