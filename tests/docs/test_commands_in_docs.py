"""Every block of commands or Python in README and docs is run.

```bash        as it stands, with a tiny model and text in the places that the page speaks of
```python      likewise
```bash help   as far as the options are parsed
```bash other  as far as the files, make's targets and the options of `headless` that it names exist
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import headless
from headless.analysis.registry import OWN
from headless.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for name in ("*.md", "docs/**/*.md") for path in ROOT.glob(name))
FENCE = re.compile(r"^```(\S*) ?([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What is put after the words of a page, so that its runs are tiny.
TINY_MODEL = (
    "--model.backbone.hidden_size 16 --model.backbone.num_attention_heads 2 "
    "--model.backbone.intermediate_size 32 --data.sequence_length 16 --data.batch_size 8 "
    "--data.num_workers 0 --trainer.max_steps 4 --trainer.val_check_interval 2 "
    "--trainer.log_every_n_steps 1 --checkpoint.every_n_steps 2 --trainer.accelerator cpu "
    "--run.wandb disabled"
).split()
SHRUNK = {"pretrain": TINY_MODEL}
TINY_OVERRIDES = {
    name.removeprefix("--"): yaml.safe_load(value)
    for name, value in zip(TINY_MODEL[::2], TINY_MODEL[1::2], strict=True)
}


class Block(NamedTuple):
    page: Path
    language: str
    kind: str  # "", "help" or "other"
    text: str

    def commands(self) -> list[str]:
        """Each command on one line, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for language, kind, text in FENCE.findall(page.read_text()):
            if language in ("bash", "python"):
                yield Block(page, language, kind, text)


BLOCKS = list(blocks())


def of_kind(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]


def test_every_block_says_how_it_is_run() -> None:
    assert {block.kind for block in BLOCKS} <= {"", "help", "other"}
    assert len(of_kind("")) >= 6
    unmarked = [
        (page.name, text)
        for page in PAGES
        for language, _, text in FENCE.findall(page.read_text())
        if language not in ("bash", "{include}")
        and re.search(r"^headless \w+ -", text, re.MULTILINE)
    ]
    assert not unmarked


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, text_files: Path, dataset: Path) -> Path:
    """A directory with what the pages speak of: the demo's runs, texts and tasks."""
    place = tmp_path_factory.mktemp("place")
    for name in ("configs", "examples"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    page = (ROOT / "docs/start.md").read_text()
    (place / "my.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    shutil.copytree(text_files, place / "my_texts")
    shutil.copytree(dataset, place / "data/demo")
    pairs = (
        '{"sentence_good": "the king sees the sea.", "sentence_bad": "sea the sees king the."}\n'
    )
    (place / "pairs.jsonl").write_text(4 * pairs)
    rows = [
        f"{'good' if label else 'bad'} number {row}\t{label}"
        for row in range(12)
        for label in (0, 1)
    ]
    (place / "reviews.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in ("vanilla", "headless"):
            run(f"headless pretrain --config configs/demo/{name}.yaml")
    return place


def run(line: str) -> None:
    """One command in this process, or by the shell where it is none of `headless`."""
    words = shlex.split(line, comments=True)
    if words[0] == "headless":
        tiny = SHRUNK.get(words[1], [])
        if "--model.backbone.custom" in words:  # whose sizes are its own
            tiny = tiny[2 * sum(name.startswith("--model.backbone") for name in tiny) :]
        assert main([*words[1:], *tiny]) in (0, None), line
    else:
        subprocess.run(line, shell=True, check=True)


def parse(words: list[str]) -> None:
    """Let a command parse its options and end there."""
    command, *options = words
    assert command in COMMANDS
    with pytest.raises(SystemExit) as end:
        raise SystemExit(main([command, *options, "--print_config"]))
    assert not end.value.code, words


PAGES_RUN = sorted({block.page for block in of_kind("")})


@pytest.mark.parametrize("page", PAGES_RUN, ids=lambda page: page.stem)
def test_run(page: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page one after the other, as a reader would."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    pretrain = headless.pretrain
    monkeypatch.setattr(headless, "pretrain", lambda c, o: pretrain(c, {**TINY_OVERRIDES, **o}))
    shutil.copytree(place, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    for block in of_kind(""):
        if block.page == page:
            if block.language == "python":
                exec(compile(block.text, str(page), "exec"), {})
            else:
                for line in block.commands():
                    run(line)
    OWN.clear()
    for example in (place / "examples").glob("*.py"):
        sys.modules.pop(example.stem, None)


@pytest.mark.parametrize("block", of_kind("help"), ids=lambda block: block.page.stem)
def test_parse(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for line in block.commands():
        words = shlex.split(line, comments=True)
        assert words[0] == "headless", line
        parse(words[1:])


@pytest.mark.parametrize("block", of_kind("other"), ids=lambda block: block.page.stem)
def test_what_is_named_exists(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "python":
        compile(block.text, str(block.page), "exec")
        return
    monkeypatch.chdir(place)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in block.commands():
        words = [word for word in shlex.split(line, comments=True) if word != "&"]
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), line
        if "headless" in words:
            parse(words[words.index("headless") + 1 :])
        for word in words:
            if word.endswith((".py", ".ipynb")):
                assert (ROOT / word).is_file(), word
