"""What was probably meant: the nearest of some names, and of the keys of a pydantic model."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that looks most like ``word``, or None where none does."""
    found = difflib.get_close_matches(word[:100], list(names), n=1)
    return found[0] if found else None


def choice(word: str, names: Sequence[str]) -> str:
    """Say which name was probably meant, or all that there are."""
    near = nearest(word, names)
    return f"did you mean '{near}'?" if near else f"choose from {', '.join(names)}"


def key_hint(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """Say which key of ``model`` was probably meant by one at ``place``, the way that pydantic names places.

    That is one beside it, else one of the same name in a table below, else all that there are beside it.
    """
    *above, word = place
    here = _model_at(model, above)
    if here is None or not isinstance(word, str):
        return ""
    names = list(here.model_fields)
    near = nearest(word, names)
    if near is None:
        tables = {name: field.annotation for name, field in here.model_fields.items()}
        near = next((f"{name}.{word}" for name, kind in tables.items() if _has_key(kind, word)), None)
    return f"did you mean '{near}'?" if near else f"choose from {', '.join(names)}"


def error_hint(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """What helps with one of a pydantic error's ``errors()``; empty where its own words are enough."""
    if error["type"] == "extra_forbidden":
        return key_hint(model, error["loc"])
    if error["type"] in ("tuple_type", "list_type"):
        return "write a list: [...]"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        wanted = [word for word in error["ctx"]["expected"].split("'")[1::2] if word]
        near = nearest(error["input"], wanted)
        return f"did you mean '{near}'?" if near else ""
    return ""


def _model_at(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel] | None:
    here: type[BaseModel] | None = model
    for part in place:
        if here is None:
            return None
        if isinstance(part, str):
            field = here.model_fields.get(part)
            # A key that is no field of a model leads through a dict of models: the model stays.
            here = here if field is None else _inner(field.annotation)
    return here


def _has_key(annotation: Any, word: str) -> bool:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return is_model and word in annotation.model_fields


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model inside a type such as ``tuple[StageSpec, ...] | None``."""
    return next(_models(annotation), None)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)
