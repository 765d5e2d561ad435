"""What a config or a checkpoint may name to be imported, and what the user allows beside it."""

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from headless.errors import HeadlessError, UnforeseenError

# A config names classes by their dotted path, and the parts of these packages are made to be named.
PACKAGES = ("headless", "lightning", "torch")
# These run what they are given: a callback of any function, a file from the network, a pickle.
REFUSED = (
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.callbacks.lambda_function",
    "torch.hub",
    "torch.load",
    "torch.package",
    "torch.serialization",
    "torch.utils.cpp_extension",
)
OPTION = "--import"
DENIED = re.compile(r"Importing '([\w.]+)' is not allowed")


def restrict_imports() -> None:
    """Nothing outside of `PACKAGES` is imported because a config or a checkpoint names it."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(
        import_path_denylist=["*", *REFUSED],
        import_path_allowlist=list(PACKAGES),
        instantiate_subclass_spec_in_any=False,
    )


def allow_import(module: str) -> None:
    """Import a module, also one of the current directory, and let configs name its package."""
    from jsonargparse import set_parsing_settings

    directory = str(Path.cwd())
    if directory not in sys.path and "" not in sys.path:
        sys.path.append(directory)
    try:
        import_module(module)
    except Exception as error:
        raise UnforeseenError(
            f"{OPTION} {module}: it cannot be imported ({type(error).__name__}: {error}); name a "
            "module as Python does: my_objectives for my_objectives.py in this directory"
        ) from error
    restrict_imports()
    set_parsing_settings(import_path_allowlist=[module.split(".")[0]])


def needed_imports(*parts: object) -> list[str]:
    """The modules of the user's own that the parts of a model come from."""
    modules = dict.fromkeys(type(part).__module__ for part in parts)
    return [m for m in modules if m.split(".")[0] not in (*PACKAGES, "transformers")]


def denied(error: BaseException) -> str | None:
    """The dotted name whose import an error, or what caused it, says was not allowed."""
    cause: BaseException | None = error
    while cause is not None:
        if match := DENIED.search(str(cause)):
            return match.group(1)
        cause = cause.__cause__ or cause.__context__
    return None


def take_imports(arguments: Sequence[str]) -> list[str]:
    """Import what `--import MODULE` names and return the other arguments."""
    rest, waiting = [], iter(arguments)
    for argument in waiting:
        option, equals, value = argument.partition("=")
        if option != OPTION:
            rest.append(argument)
        elif module := value if equals else next(waiting, ""):
            allow_import(module)
        else:
            raise HeadlessError(f"{OPTION} needs the name of a module: {OPTION} my_objectives")
    return rest
