"""What a stage's error calls its settings where they stand in a pipeline's file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from nat2deploy.errors import UserError
from nat2deploy.run.config import PipelineConfig

_NAMED = re.compile(r"--table ([\w-]+)=(\S+)")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")
# Options that a file calls otherwise.
_KEYS = {
    "space": "[space] name",
    "ssh-option": "[profile] ssh_options",
    "time-limit": "[profile] time_limit_s",
}
_SECTIONS = {
    section: tuple(getattr(field.annotation, "model_fields", ()))
    for section, field in PipelineConfig.model_fields.items()
}


def as_keys(text: str, section: str) -> str:
    """Return an error's words with the keys of a file: ``[export] sm`` for ``--sm``.

    The key is the stage's own, ``section``, or that of the one section that has it. Options of a pipeline
    itself, and commands in backticks, stay.
    """

    def key(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        owners = [one for one in _SECTIONS if name in _SECTIONS[one]]
        if section in owners or len(owners) == 1:
            return f"[{section if section in owners else owners[0]}] {name}"
        return _KEYS.get(found[1], name if name in PipelineConfig.model_fields else found[0])

    text = _NAMED.sub(r'[profile.tables] \1 = "\2"', text)
    parts = text.split("`")
    return "`".join(_OPTION.sub(key, part) if number % 2 == 0 else part for number, part in enumerate(parts))


@contextmanager
def told_as_keys(section: str) -> Iterator[None]:
    """Inside, an error of a stage names keys of the file."""
    try:
        yield
    except UserError as error:
        raise type(error)(as_keys(str(error), section)) from error
