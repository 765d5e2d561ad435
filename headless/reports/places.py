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
    places = Places()
    seen: set[Path] = set()
    folders = [path for path in named if path.is_dir() and not _is_comparable(path)]
    for path in named:
        if path not in folders:
            if path.resolve() in seen:
                raise HeadlessError(f"{path} is named twice: name each run once")
            seen.add(path.resolve())
    for path in named:
        inside = list(_below(path, DEPTH)) if path in folders else [path]
        if not inside:
            raise HeadlessError(
                f"{path} is not a run directory (no config.yaml), and none lies up to {DEPTH} "
                "levels below it: headless pretrain makes one"
            )
        for place in inside:
            if place is not path:
                known = place.resolve() in seen
                seen.add(place.resolve())
                if known or _left_out(places, place, path):
                    continue
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
    for path in sorted(folder.iterdir(), key=_natural_order):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if _is_comparable(path):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _left_out(places: Places, path: Path, folder: Path) -> bool:
    """Whether what lies in a folder is not meant when the folder is named."""
    run = RunDirectory(path)
    if any(is_moved_aside(Path(part)) for part in path.relative_to(folder).parts):
        places.left_out.append(f"{path} was moved aside: name it to compare it.")
    elif _has_results(path) or run.metrics.is_file() or run.summary.is_file():
        return False
    else:
        places.left_out.append(f"{path} has no logged point and no results yet.")
    return True


def _natural_order(path: Path) -> list[tuple[str, int]]:
    """Seed 2 comes before seed 10."""
    return [(word, int(n or 0)) for word, n in re.findall(r"(\D*)([0-9]*)", path.name)]
