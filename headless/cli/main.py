"""`headless COMMAND …`: finds the command's module, runs it, turns the user's mistakes into a line.

Nothing heavy is imported here, so `headless --help` answers at once.
"""

import errno
import importlib
import sys

from headless import __version__
from headless.errors import HeadlessError

COMMANDS = {
    "prepare": "text to tokenizer and token stream",
    "pretrain": "train a model from a config",
    "validate": "evaluate a checkpoint on its validation text",
    "compare": "run directories to a table and report.html",
    "export": "a checkpoint to a Hugging Face directory",
    "generate": "continue prompts with a model",
    "finetune": "train an LM head, or classify labelled text",
    "evaluate": "perplexity, last words, minimal pairs, multiple choice",
    "neighbors": "nearest tokens and nearest contexts (faiss)",
    "analyze": "the inside of any model, as a page",
}
FULL_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
USER_ERROR = 2
INTERRUPTED = 130


def usage() -> str:
    """The text of `headless --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"headless {__version__}: pre-train language models with and without a softmax head",
            "",
            "usage: headless COMMAND [--option value …]",
            "",
            *lines,
            "",
            "headless COMMAND --help lists the options of a command.",
        ]
    )


def fail(message: str) -> int:
    """Print one line on standard error; the exit code of a user's mistake."""
    print(f"headless: error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else USER_ERROR
    if arguments[0] == "--version":
        print(f"headless {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(COMMANDS)}"
        return fail(f"there is no command {name!r}; {hint}")
    try:
        importlib.import_module(f"headless.cli.{name}").main(rest)
    except HeadlessError as error:
        return fail(str(error))
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        place = f" {error.filename}" if error.filename else ""
        return fail(
            f"no room to write{place} ({error.strerror}); what was complete before is intact: "
            "free some space and run the command again"
        )
    except KeyboardInterrupt:
        print("headless: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0
