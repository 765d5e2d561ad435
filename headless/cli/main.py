"""`headless COMMAND …`: finds the command's module, runs it, turns the user's mistakes into a line.

Nothing heavy is imported here, so `headless --help` answers at once.
"""

import argparse
import errno
import importlib
import os
import sys
import tempfile
import traceback
from inspect import signature
from os.path import lexists
from pathlib import Path

import headless
from headless import __version__
from headless.errors import HeadlessError, UnforeseenError, suggestion

COMMANDS = {
    "prepare": "text to tokenizer and token stream",
    "pretrain": "train a model from a config",
    "validate": "evaluate a checkpoint on its validation text",
    "sweep": "many runs: arms tuned each for itself, seeds, workers, one comparison",
    "compare": "run directories to a table and report.html",
    "export": "a checkpoint to a Hugging Face directory",
    "generate": "continue prompts with a model",
    "finetune": "train an LM head, or classify labelled text",
    "evaluate": "perplexity, last words, minimal pairs, multiple choice",
    "neighbors": "nearest tokens and nearest contexts (faiss)",
    "analyze": "the inside of any model, as a page",
}
FULL_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
# How libraries say that there is no memory; torch is not imported to ask for its own error's type.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
USER_ERROR = 2
INTERRUPTED = 130
READER_GONE = 141  # what a shell gives a command whose reader stopped reading: `... | head`


def usage() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            f"headless {__version__}: pre-train language models with and without a softmax head",
            "",
            "usage: headless COMMAND [--option value …]",
            "",
            *(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()),
            "",
            "headless COMMAND --help lists the options of a command; --import MODULE lets a config",
            "name the classes of your own module. headless --print_completion shtab-bash writes a",
            "script by which a shell completes commands, options and values.",
        ]
    )


def fail(message: str) -> int:
    """Print one line on standard error; the exit code of a user's mistake."""
    print(f"headless: error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 130 when interrupted."""
    try:
        return dispatch(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("headless: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads it any more
        return READER_GONE
    except Exception as error:  # noqa: BLE001 - no input may end in a traceback
        return fail(explain(error))


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else USER_ERROR
    if arguments[0] == "--version":
        print(f"headless {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    option, _, shell = name.partition("=")
    if option == "--print_completion":  # imports what the options are of: seconds
        from headless.cli import completion

        completion.main([shell] if shell else rest, COMMANDS)
        return 0
    for word in rest:  # Python marks bytes that are no characters, by which a file may be named
        if any("\ud800" <= character <= "\udfff" for character in word) and not lexists(word):
            raise HeadlessError(f"{word!a} is no text in UTF-8: write it in UTF-8")
    if name not in COMMANDS:
        return fail(f"there is no command {name!r}; {suggestion(name, COMMANDS, 'commands')}")
    if any(word.startswith("--import") for word in rest):
        from headless.training.parsing import take_imports

        rest = take_imports(rest)
    if name == "finetune" and _task(rest) == "lm-head":
        name = "finetune_head"
    if name in ("pretrain", "validate", "finetune_head"):  # torch and Lightning take seconds
        from headless.training.options import check_options, stub

        head_options = signature(stub("headless.training.tune_head", "tuning_config")).parameters
        check_options(rest, also=["task", *head_options] if name == "finetune_head" else ())
    importlib.import_module(f"headless.cli.{name}").main(rest)
    return 0


def _task(arguments: list[str]) -> str | None:
    """What `--task` says, which decides which options there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", nargs="?")
    return parser.parse_known_args(arguments)[0].task


def explain(error: Exception) -> str:
    """What an error that ends a command means to the user."""
    if isinstance(error, UnforeseenError):
        return f"{error}{_save_traceback(error)}"
    if isinstance(error, HeadlessError):
        return str(error)
    text = f"{error}".strip() or type(error).__name__
    first_line = text.splitlines()[0]
    if isinstance(error, MemoryError) or any(words in text.lower() for words in NO_MEMORY):
        return (
            f"memory ran out ({first_line}): lower the batch size, the length of the "
            "sequences or the size of the model"
        )
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        place = f" {error.filename}" if error.filename else ""
        return (
            f"no room to write{place} ({error.strerror}); what was complete before is intact: "
            "free some space and run the command again"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's own for bad settings
        return text
    if isinstance(error, RecursionError):
        first_line = "something in the input is nested too deeply"
    return f"{type(error).__name__}: {first_line} ({_location(error)}{_save_traceback(error)})"


def _location(error: Exception) -> str:
    """The last line of this package that took part."""
    root = Path(headless.__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root):
            return f"at {path.relative_to(root.parent).as_posix()}:{frame.lineno}"
    return "outside of headless"


def _save_traceback(error: Exception) -> str:
    """The traceback goes to a file, which the returned words name."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"headless-{os.getpid()}-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return f"; the traceback is in {file.name}"
