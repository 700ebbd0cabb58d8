"""The error that a user can mend, and memory that runs out."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """


class UnfitNetworkError(UserError):
    """A network cannot become what is asked for; another one may."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, or that of PyTorch on a CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
