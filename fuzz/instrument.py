"""Counting which branches of the package's code an input takes: its modules are rewritten when imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nat2deploy.errors import UserError


@contextmanager
def instrumented(packages: Sequence[str] = ("nat2deploy",)) -> Iterator[None]:
    """Instrument what is imported of ``packages`` inside; what is imported already stays as it is.

    Raises:
        UserError: Atheris is not installed.
    """
    try:
        import atheris
    except ImportError as error:
        raise UserError(
            "coverage-guided fuzzing needs Atheris, which there is for Linux: pip install 'nat2deploy[fuzz]'"
        ) from error
    with atheris.instrument_imports(include=list(packages)):
        yield
