"""What a config or a checkpoint may name to be imported, and what the user allows beside it.

jsonargparse is not needed to import this: who trains from a script does without it.
"""

import re
import sys
from importlib import import_module
from pathlib import Path

from headless.errors import UnforeseenError

# A config names classes by their dotted path, and the parts of these packages are made to be named.
PACKAGES = ("headless", "lightning", "torch")
# These run what they are given: a callback of any function, a file from the network, a pickle.
REFUSED = (
    *(f"lightning.pytorch.callbacks.{name}" for name in ("LambdaCallback", "lambda_function")),
    *(f"torch.{name}" for name in ("hub", "load", "package", "serialization")),
    "torch.utils.cpp_extension",
)
OPTION = "--import"
DENIED = re.compile(r"Importing '([\w.]+)' is not allowed")
_allowed: dict[str, None] = {}  # in the order in which they were


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
    _allowed[module] = None


def allowed_imports() -> list[str]:
    """What the user allowed in this process, for the processes that it starts."""
    return [module for module in _allowed if module in sys.modules]


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
