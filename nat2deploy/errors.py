"""The error that a user can mend, and memory that runs out."""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEY = re.compile(r"\{(?P<key>\w+)(?: = (?P<value>[^}]*))?\}")


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """


class KeysError(ValueError):
    """Settings that do not fit together, each key in braces, some with a value: ``{stages = true}``.

    As text they stand as in a file; a command line says what its options are called.
    """

    def __str__(self) -> str:
        """Return the words with the keys of a file."""
        return _KEY.sub(lambda found: found[0][1:-1], super().__str__())

    def as_options(self, options: Mapping[str, str]) -> str:
        """Return the words with a command's options, by key: ``--stages`` for ``{stages = true}``."""

        def option(found: re.Match[str]) -> str:
            name, value = options.get(found["key"]), found["value"]
            if name is None:
                return found[0][1:-1]
            if value is None or value == "true":
                return name
            return name + " " + value.strip("'")

        return _KEY.sub(option, super().__str__())


class UnfitNetworkError(UserError):
    """A network cannot become what is asked for; another one may."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's words, its class's name where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, or that of PyTorch on a CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
