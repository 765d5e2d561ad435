"""The one exception for what a user can mend."""


class HeadlessError(Exception):
    """Bad input: one line that says what is wrong and how to mend it.

    The command line prints the line and exits with 2, without a traceback.
    """


class UnforeseenError(HeadlessError):
    """Bad input that a library, or a class of the user's, answered with an error of its own.

    The command line keeps its traceback in a file.
    """
