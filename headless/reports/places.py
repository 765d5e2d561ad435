"""What the named directories hold: runs, classifiers that were fine-tuned, and folders of them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headless.errors import HeadlessError
from headless.files import is_moved_aside
from headless.runs.directory import RunDirectory

RESULTS = "results.json"  # what `headless finetune` writes when it is done
DEPTH = 2  # levels below a named folder that are looked at


@dataclass
class Places:
    """Directories in the order in which they were named; in a folder by name."""

    runs: list[Path] = field(default_factory=list)
    finetunings: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # sentences on what folders hold besides


def find_places(named: Sequence[Path]) -> Places:
    """Look at what was named, and below folders at what is in them.

    Raises:
        HeadlessError: none named, one named twice, or one that holds no run.
    """
    if not named:
        raise HeadlessError(
            "name the runs to compare, or a folder of them: headless compare runs/a runs/b "
            "--output DIR"
        )
    folders = [path for path in named if path.is_dir() and not _is_comparable(path)]
    seen: set[Path] = set()
    for path in named:
        if path not in folders and path.resolve() in seen:
            raise HeadlessError(f"{path} is named twice: name each run once")
        seen |= set() if path in folders else {path.resolve()}
    places = Places()
    for path in named:
        inside = list(_below(path, DEPTH)) if path in folders else [path]
        if not inside:
            raise HeadlessError(
                f"{path} is not a run directory (no config.yaml), and none lies up to {DEPTH} "
                "levels below it: headless pretrain makes one"
            )
        for place in inside:
            if place is not path and place.resolve() in seen:
                continue
            seen.add(place.resolve())
            if place is not path and (why := _why_left_out(place, path)):
                places.left_out.append(why)
            else:
                (places.finetunings if _has_results(place) else places.runs).append(place)
    if not places.runs and not places.finetunings:
        raise HeadlessError(f"nothing to compare: {' '.join(places.left_out)}")
    return places


def _is_comparable(path: Path) -> bool:
    return RunDirectory(path).config.is_file() or _has_results(path)


def _has_results(path: Path) -> bool:
    """Whether they are `headless finetune`'s, or damaged: other programs use the name."""
    try:
        results = json.loads((path / RESULTS).read_bytes())
    except OSError:
        return False
    except (ValueError, RecursionError):
        return True
    return isinstance(results, dict) and bool({"task", "seeds", "reported_split"} & set(results))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Directories in it, seed 2 before seed 10."""
    inside = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    for path in sorted(
        inside, key=lambda path: re.sub(r"\d+", lambda n: n[0].zfill(20), path.name)
    ):
        if _is_comparable(path):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _why_left_out(path: Path, folder: Path) -> str:
    """Why what lies in a folder is not meant when the folder is named; empty: it is."""
    run = RunDirectory(path)
    if any(is_moved_aside(Path(part)) for part in path.relative_to(folder).parts):
        return f"{path} was moved aside: name it to compare it."
    begun = _has_results(path) or run.metrics.is_file() or run.summary.is_file()
    return "" if begun else f"{path} has no logged point and no results yet."
