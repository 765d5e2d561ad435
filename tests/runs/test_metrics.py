"""A file of points that survives whatever ends the process that writes it."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headless.errors import HeadlessError
from headless.runs.metrics import append_point, read_metrics, truncate_metrics

KEY = st.text(min_size=1, max_size=8)
VALUE = st.one_of(st.integers(), st.floats(), st.text(max_size=20), st.booleans())
POINTS = st.lists(st.dictionaries(KEY, VALUE, max_size=4), max_size=5)


def without_strange_numbers(point: dict) -> dict:
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in point.items()
    }


@settings(deadline=None, max_examples=50)
@given(points=POINTS, cut=st.integers(0, 40))
def test_a_file_that_was_cut_holds_all_whole_lines(tmp_path_factory, points, cut) -> None:
    """Anywhere, also inside a character; and lines appended after a resume are not glued to it."""
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    for point in points:
        append_point(path, point)
    expected = [without_strange_numbers(p) for p in points]
    assert read_metrics(path) == expected
    if not points:
        return
    data = path.read_bytes()
    kept = data[: max(len(data) - cut, 0)]
    path.write_bytes(kept)
    whole = kept.count(b"\n")
    assert read_metrics(path) == expected[:whole]
    truncate_metrics(path, sys.maxsize)
    append_point(path, {"after": 1})
    assert read_metrics(path) == [*expected[:whole], {"after": 1}]


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_point(path, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1e308, "e": "☃\n\u2028"})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (line,) = path.read_text(encoding="utf-8").split("\n")[:-1]
    point = json.loads(line, parse_constant=refuse)
    assert point == {"a": None, "b": None, "c": None, "d": 1e308, "e": "☃\n\u2028"}


def test_truncating_drops_what_comes_after_the_tokens(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for tokens in (0, 10, 20, 20, 30):
        append_point(path, {"progress/tokens": tokens, "x": float(tokens)})
    dropped = truncate_metrics(path, 19)
    assert [p["progress/tokens"] for p in dropped] == [20, 20, 30]
    assert [p["progress/tokens"] for p in read_metrics(path)] == [0, 10]
    assert truncate_metrics(path, 10) == []
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]  # nothing beside it


def test_no_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    assert truncate_metrics(path, 5) == []
    assert not path.exists()


@pytest.mark.parametrize("line", [b"{broken", b"[1]", b"\xff\xfe"])
def test_a_damaged_file_is_said(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    append_point(path, {"a": 1})
    with open(path, "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(HeadlessError, match="metrics.jsonl, line 2"):
        read_metrics(path)


def test_a_killed_writer(tmp_path: Path) -> None:
    """A real process, killed in the middle of writing as fast as it can."""
    path = tmp_path / "metrics.jsonl"
    code = (
        "import sys; from pathlib import Path; from headless.runs.metrics import append_point\n"
        "i = 0\n"
        "while True:\n"
        "    append_point(Path(sys.argv[1]), {'progress/tokens': i, 'text': 'ä' * 3000}); i += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not path.exists() or os.path.getsize(path) < 1_000_000:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    points = read_metrics(path)
    assert [p["progress/tokens"] for p in points] == list(range(len(points)))
    assert len(points) > 100


def test_a_half_written_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    append_point(path, {"a": 1})
    with open(path, "ab") as file:
        file.write('{"text": "ä'.encode()[:-1])  # killed inside a character
    append_point(path, {"b": 2})
    assert read_metrics(path) == [{"a": 1}, {"b": 2}]


def test_a_line_that_only_lacks_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.jsonl"
    path.write_text('{"a": 1}\n{"by": "hand"}')
    append_point(path, {"b": 2})
    assert read_metrics(path) == [{"a": 1}, {"by": "hand"}, {"b": 2}]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "metrics.jsonl"
    append_point(path, {"a": 1})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="metrics.jsonl"):
            append_point(path, {"text": "longer than five bytes"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before


def test_tokens_that_are_no_number_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"progress/tokens": "many"}\n')
    with pytest.raises(HeadlessError, match=r"line 1 is damaged \(progress/tokens is no number"):
        truncate_metrics(path, 10)
