"""The files, tests and links that README and docs name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for name in ("*.md", "docs/**/*.md") for path in ROOT.glob(name))
PLACES = "headless|scripts|tests|benchmarks|configs|examples|docs"
FILE = re.compile(rf"`((?:{PLACES})/[\w./-]+\.\w+)(?:::(\w+))?`")
TEST = re.compile(r"`(?:test_\w+\.py)?::(test_\w+)`")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")


def test_there_are_pages() -> None:
    assert len(PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for name, test in FILE.findall(text):
        if "NAME" in name:
            continue
        assert (ROOT / name).is_file(), name
        if test:
            assert f"def {test}(" in (ROOT / name).read_text(), f"{name}::{test}"
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    for test in TEST.findall(text):
        assert f"def {test}(" in tests, test
    for link in LINK.findall(text):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_the_laboratorys_guide_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "laboratory.md").read_text()
    there = {path.stem for path in ROOT.glob("tests/**/test_*.py")}
    named = set(re.findall(r"\btest_\w+", text))
    assert named
    assert named <= there, named - there
