"""The one exception for what a user can mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class HeadlessError(Exception):
    """Bad input: one line that says what is wrong and how to mend it.

    The command line prints the line and exits with 2, without a traceback.
    """


class DivergedError(HeadlessError):
    """A training whose loss is no number any more: the same settings will end there again."""


class BusyError(HeadlessError):
    """Another process holds what is wanted: the same may work once it has ended."""


class UnforeseenError(HeadlessError):
    """Bad input that a library, or a class of the user's, answered with an error of its own.

    The command line keeps its traceback in a file.
    """


def suggestion(name: str, known: Iterable[str], kind: str) -> str:
    """The end of a complaint about an unknown name: the nearest known one, or all of this kind."""
    known = list(known)
    nearest = get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"{kind}: {', '.join(known)}"


def one_line(error: object, most: int | None = None) -> str:
    """An error's text without line ends, its first `most` characters."""
    return " ".join(str(error).split())[:most]
