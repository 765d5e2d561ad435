"""Imports go downward only, and heavy libraries are imported where they are used."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "headless"
LAYERS = [
    {"geometry", "objectives", "models", "data", "runs", "pages"},
    {"callbacks"},
    {"training"},
    {"analysis", "downstream"},
    {"reports"},
    {"cli"},
]
BASE = ("errors", "files", "isolation", "progress", "structured", "sums")
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
LAZY = {"wandb", "datasets", "faiss", "matplotlib", "umap", "lm_eval", "pyarrow", "sklearn"}
PURE = {"geometry", "objectives", "runs"}
FILES = sorted(ROOT.rglob("*.py"))


def imports(tree: ast.AST) -> set[str]:
    """Dotted names that the nodes of a tree import."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def at_import_time(path: Path) -> set[str]:
    """What a module imports when it is imported: not inside functions."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return imports(tree)


def test_every_package_has_a_layer() -> None:
    packages = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"__pycache__"}
    assert packages <= set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        return
    own = parts[0]
    for name in imports(ast.parse(path.read_text())):
        pieces = name.split(".")
        if pieces[0] != "headless" or len(pieces) < 2 or pieces[1] in (*BASE, own):
            continue
        assert RANK[pieces[1]] < RANK[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_imports_wait(path: Path) -> None:
    heavy = {name.split(".")[0] for name in at_import_time(path)}
    assert not heavy & LAZY
    parts = path.relative_to(ROOT).parts
    if parts[0] in PURE:
        everything = {n.split(".")[0] for n in imports(ast.parse(path.read_text()))}
        assert not everything & {"lightning", "transformers"}
    if parts == ("cli", "main.py") or len(parts) == 1:
        assert "torch" not in heavy


def test_nothing_is_called_utils() -> None:
    assert not [p for p in FILES if p.stem in ("utils", "util", "common", "misc", "helpers")]
