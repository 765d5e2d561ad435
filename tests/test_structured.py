"""What JSON and YAML readers take in silence is refused in a line."""

import json
from pathlib import Path

import pytest
import yaml

from headless.errors import HeadlessError
from headless.structured import load_yaml, read_json, read_yaml

LAUGHS = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 10)}]\n" for name in "bcdef"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"'a' is given twice.*\n?.*line 3"),
        ("a: {x: 1, y: {x: 2}, x: 3}", "'x' is given twice"),
        ("- {lr: 1, lr: 2}", "'lr' is given twice"),
        ("[" * 150 + "]" * 150, "100 levels deep"),
        (LAUGHS, "more than 100,000 values"),
    ],
)
def test_what_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError, match=message):
        load_yaml(text)
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(HeadlessError, match="some.yaml"):
        read_yaml(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: {x: 1}\nb: {x: 1}\n",
        "- {x: 1}\n- {x: 1}\n",
        "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a, x, x]\n",
        "x: x\ny: x\n",
        "? b\n: a\na: c\n",
        "plain words",
        "",
    ],
)
def test_what_is_not(text: str) -> None:
    assert load_yaml(text) == yaml.safe_load(text)


def test_the_shipped_configs_are_not_refused() -> None:
    for path in Path("configs").glob("*/*.yaml"):
        assert read_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("text", ["[1]", "3", "null", "{", "[" * 100_000, "\udcff", ""])
def test_json_of_another_type(text: str, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(HeadlessError, match="summary.json is damaged"):
        read_json(path, dict)


def test_json_of_the_right_type(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path, dict) == {"a": 1}
