"""What a function or class takes, read from its file: nothing is imported for it.

So that a command knows its options, and answers a wrong one, without the seconds that torch takes.
"""

import ast
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

PLAIN: dict[str, Any] = {
    **{t.__name__: t for t in (str, int, float, bool, list, dict, tuple, Path, Mapping, Sequence)},
    **{"Any": Any, "Literal": Literal, "None": None},
}


@cache
def _tree(module: str) -> ast.Module:
    package, *inner = module.split(".")
    spec = find_spec(package)  # of the package alone, which imports nothing
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent.joinpath(*inner)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def _find(module: str, name: str) -> Any:
    """What a module binds to a name at its top level, followed to where it is written."""
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == name for t in node.targets):
            return node.value
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    is_ours = (node.module or "").split(".")[0] == module.split(".")[0]
                    return _find(str(node.module), alias.name) if is_ours else None
    return None


def names_of(module: str, name: str) -> list[str]:
    """What a class is made with: the fields of a dataclass, else the parameters of `__init__`."""
    node = _find(module, name)
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return [argument.arg for argument in (*method.args.args[1:], *method.args.kwonlyargs)]
    fields = (statement.target for statement in node.body if isinstance(statement, ast.AnnAssign))
    return [target.id for target in fields if isinstance(target, ast.Name)]


def stub(module: str, name: str) -> Callable[..., Any]:
    """A function with the signature and the docstring of another one, that does nothing.

    Types that are not plain ones, of which a command line has none (an open model, a callable),
    are left out of a union.
    """
    node = copy.deepcopy(_find(module, name))
    known = dict(PLAIN)
    node.decorator_list, node.returns, node.body = [], None, node.body[:1]
    for argument in (*node.args.args, *node.args.kwonlyargs):
        argument.annotation = _plain(argument.annotation, module, known)
    space = known | {"__name__": __name__}  # the parser imports a function's module
    exec(compile(ast.fix_missing_locations(ast.Module([node], [])), module, "exec"), space)
    function: Any = space[name]
    function.__qualname__ = f"{name}'s signature"  # by its name, the parser would find the verb
    return function


def _plain(node: Any, module: str, known: dict[str, Any]) -> Any:
    """An annotation without what is not plain; names that stand for plain types become known."""
    if isinstance(node, ast.BinOp):
        left, right = (_plain(side, module, known) for side in (node.left, node.right))
        return ast.BinOp(left, node.op, right) if left and right else left or right
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # written in quotes
        return _plain(ast.parse(node.value, mode="eval").body, module, known)
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            return None
        if isinstance(part, ast.Name) and part.id not in known:
            alias = _find(module, part.id)
            if not isinstance(alias, ast.Subscript) or _plain(alias, module, known) is None:
                return None
            known[part.id] = eval(compile(ast.Expression(alias), module, "eval"), known)
    return node
