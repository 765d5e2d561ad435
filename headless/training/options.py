"""The options of a command by name, read from source files: a wrong one is answered at once.

Nothing is imported for it: torch and Lightning take seconds.
"""

import ast
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from headless.errors import HeadlessError
from headless.structured import read_yaml
from headless.training.parsing import read_words, suggest

# Where the settings of each group are written down.
GROUPS = {
    "run": ("headless.training.settings", "RunConfig"),
    "data": ("headless.data.datamodule", "TokenDataModule"),
    "model": ("headless.training.module", "PretrainingModule"),
    "model.backbone": ("headless.models.backbone", "BackboneConfig"),
    "model.optimizer": ("headless.training.optim", "OptimizerConfig"),
    "model.schedule": ("headless.training.optim", "ScheduleConfig"),
    "trainer": ("lightning.pytorch.trainer.trainer", "Trainer"),
    "checkpoint": ("headless.callbacks.checkpoint", "RunCheckpoint"),
    "throughput": ("headless.callbacks.throughput", "ThroughputMonitor"),
    "memory": ("headless.callbacks.memory", "MemoryMonitor"),
    "laboratory": ("headless.callbacks.laboratory", "LaboratoryMonitor"),
    "samples": ("headless.callbacks.samples", "SampleWriter"),
}
# Their values are classes or mappings with keys of their own: the live parser knows those.
OPEN = (
    *("model.objective", "model.backbone.extra", "model.optimizer.init_args"),
    *("trainer.accelerator", "trainer.callbacks"),
    *("trainer.logger", "trainer.max_time", "trainer.plugins", "trainer.profiler"),
    *("trainer.strategy", "trainer.val_check_interval"),
)
LINKED = {
    "model.vocab_size": "it is the data's",
    "model.eos_token_id": "it is the data's",
    "model.sequence_length": "set data.sequence_length",
    "model.task": "set data.task",
    "data.seed": "set seed_everything",
}
OTHER = ("config", "help", "parts", "print_config", "print_completion", "seed_everything")
PLAIN: dict[str, Any] = {
    **{t.__name__: t for t in (str, int, float, bool, list, dict, tuple, Path, Mapping, Sequence)},
    **{"Any": Any, "Literal": Literal, "None": None},
}

# -- of `headless pretrain` -------------------------------------------------------------------


@cache
def options() -> frozenset[str]:
    """Every option by its dotted name, groups left out."""
    names = {f"{group}.{name}" for group, place in GROUPS.items() for name in names_of(*place)}
    return frozenset(names - set(GROUPS) - set(LINKED) | {"seed_everything"})


def check_options(arguments: Sequence[str], also: Sequence[str] = ()) -> None:
    """Refuse the first option, key of a config file, or config file that does not exist.

    `also` are further options of the command.
    """
    for option, value, _ in read_words(with_parts(arguments)):
        name = option[2:].removesuffix("+")
        if name == "config":
            _check_file(value or "")
        elif name and name not in also:
            _check_name(name, option, f"unrecognized arguments: {option}", also)


def _check_file(place: str) -> None:
    if _is_inline(place):
        return
    if not Path(place).is_file():
        raise HeadlessError(f"there is no config file {place}")
    for name in _keys(read_yaml(Path(place))):
        _check_name(name, f"{place}: {name}", f"{place}: key '{name}' is not expected", ())


def _check_name(name: str, place: str, unknown: str, also: Sequence[str]) -> None:
    if name in LINKED:
        raise HeadlessError(f"{place} would be overruled: {LINKED[name]}, so leave it out")
    if any(name == key or name.startswith(f"{key}.") for key in OPEN):
        return
    if name not in options() and name not in GROUPS and name not in OTHER:
        raise HeadlessError(suggest(unknown, [*also, *sorted(options()), *GROUPS, *OTHER]))


def _keys(values: dict[Any, Any], above: str = "") -> Iterator[str]:
    """The dotted keys of a config, down to where the live parser knows better."""
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict) and value and name in GROUPS:
            yield from _keys(value, name)
        else:
            yield name


def with_parts(arguments: Sequence[str]) -> list[str]:
    """The words of a command line, before each config the parts that it names.

    `parts: [../backbone/pythia-70m.yaml]` are config files, beside the one that names them, or in
    the working directory; what comes later wins.
    """
    rest: list[str] = []
    for option, value, words in read_words(arguments):
        if option == "--config":
            words = [f"--config={place}" for place in (*_parts(value or "", ()), value or "")]
        rest += words
    return rest


def _parts(place: str, above: tuple[Path, ...]) -> list[str]:
    path = Path(place)
    if _is_inline(place) or not path.is_file():
        return []
    if path.resolve() in above:
        raise HeadlessError(f"{place} is a part of itself: leave it out of parts")
    return named_parts(read_yaml(path).get("parts"), place, path.parent, (*above, path.resolve()))


def named_parts(names: Any, place: str, near: Path, above: tuple[Path, ...] = ()) -> list[str]:
    """The config files that `parts` of a place name, each behind its own parts."""
    names = names or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise HeadlessError(f"{place}: parts must be a list of config files, got {names!r}")
    paths: list[str] = []
    for name in names:
        beside = near / name
        part = str(beside if beside.is_file() or not Path(name).is_file() else Path(name))
        if not Path(part).is_file():
            raise HeadlessError(f"{place}: there is no part {part}")
        paths += [*_parts(part, above), part]
    return paths


def _is_inline(place: str) -> bool:
    """None, one on the network, or the text of a config."""
    return not place or "://" in place or any(sign in place for sign in "{:\n")


# -- of any class or function -----------------------------------------------------------------


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


def docstring_of(module: str, name: str) -> str:
    """Of a class or function; where a class has none, of its `__init__`."""
    node = _find(module, name)
    inner = (part for part in node.body if getattr(part, "name", "") == "__init__")
    return next((text for part in (node, *inner) if (text := ast.get_docstring(part))), "")


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
