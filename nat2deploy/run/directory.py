"""A run directory: the complete configuration, and files that survive a kill at any moment."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel

from nat2deploy.errors import UserError
from nat2deploy.files import is_temporary, parse, read_toml, remove_temporaries, write_text
from nat2deploy.locks import holding

Config = TypeVar("Config", bound=BaseModel)


class RunDirectory:
    """A folder that holds everything of one search: see DESIGN for the names of its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_path(self) -> Path:
        """The complete settings; re-running them gives the same run."""
        return self.path / "config.toml"

    @property
    def supernet_path(self) -> Path:
        """The super-network, or those of all widths, as the last finished adaptation left them."""
        return self.path / "supernet.safetensors"

    @property
    def front_path(self) -> Path:
        """The front, with predicted and measured costs."""
        return self.path / "front.json"

    def network(self, identity: str) -> Path:
        """The folder of one chosen network."""
        return self.path / "networks" / identity

    def begin(self, config: BaseModel, changeable: Collection[str] = ()) -> None:
        """Start the run, or go on with it when it has the same settings.

        Paths may be spelled in another way, and those of files in a pipeline's folder may be of the place
        where that folder was. ``changeable`` are sections that may be others, see ``renew``.

        Raises:
            UserError: the folder holds something else, or a run with other settings.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; choose another --out")
        wanted = config.model_dump(mode="json", exclude_none=True)
        if not self.config_path.exists():
            # A process that was killed here, or begins at this moment, has left no more than these.
            present = self.path.iterdir() if self.path.exists() else ()
            if any(path.name != ".lock" and not is_temporary(path) for path in present):
                raise UserError(f"{self.path} is not empty and not a run; choose another --out")
            write_text(self.config_path, tomli_w.dumps(wanted))
            return
        try:
            held = self.read_config(type(config)).model_dump(mode="json", exclude_none=True)
        except UserError as error:
            raise UserError(
                f"{self.path} holds another kind of run, or a damaged one ({error}); choose another --out"
            ) from error
        above = self.path.absolute().parent
        pipeline = above.resolve() if RunDirectory(above).config_path.exists() else None
        unlike = _unlike(_without(held, changeable), _without(wanted, changeable), pipeline)
        if unlike:
            may = f" (it may have another {' and '.join(f'[{name}]' for name in changeable)})"
            raise UserError(
                f"run {self.path} was made with other settings ({', '.join(unlike)}); "
                f"repeat its own (config.toml) to go on with it{may if changeable else ''}, "
                "or choose another --out"
            )

    def renew(self, config: BaseModel, sections: Collection[str]) -> None:
        """Store other ``sections`` of a run's settings than it has; the run must be locked.

        Raises:
            UserError: the stored ones cannot be read.
        """
        held = self.read_config(type(config)).model_dump(mode="json", exclude_none=True)
        wanted = config.model_dump(mode="json", exclude_none=True)
        renewed = {key: wanted[key] if key in sections else value for key, value in held.items()}
        if renewed != held:
            write_text(self.config_path, tomli_w.dumps(renewed))

    def read_config(self, model: type[Config]) -> Config:
        """Return the settings that the run was begun with.

        Raises:
            UserError: no run, or a config that does not fit.
        """
        if not self.config_path.exists():
            raise UserError(f"no run at {self.path}; make one with `nat2deploy search`")
        if "search" not in model.model_fields and (self.path / "search" / "config.toml").exists():
            raise UserError(f"{self.path} is a pipeline's folder; its search is {self.path / 'search'}")
        return parse(model, read_toml(self.config_path, "run config"), f"run config {self.config_path}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the system lets go of it when the process ends, however it ends.

        What a killed process left of its writing is removed.

        Raises:
            UserError: another process works on the run, or its folder cannot be written to.
        """
        busy = f"run {self.path} is in use by another process; wait for it"
        with holding(self.path / ".lock", busy, keep=True):
            if sys.platform != "win32":  # where somebody else may be writing
                remove_temporaries(self.path)
            yield


def _without(settings: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def _unlike(held: dict[str, Any], wanted: dict[str, Any], pipeline: Path | None) -> list[str]:
    """The keys, such as ``settings.searcher``, whose values differ."""
    found = []
    for key in sorted(held.keys() | wanted.keys()):
        one, other = held.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [f"{key}.{inner}" for inner in _unlike(one, other, pipeline)]
        elif not _alike(one, other, pipeline):
            found.append(key)
    return found


def _alike(held: Any, wanted: Any, pipeline: Path | None) -> bool:
    """Whether two values are the same, or paths of one file.

    A path that is wanted in the folder ``pipeline`` is one that the pipeline gives its search: by the same
    name it is the same file, wherever the folder was.
    """
    if isinstance(held, list) and isinstance(wanted, list):
        pairs = zip(held, wanted, strict=False)
        return len(held) == len(wanted) and all(_alike(one, other, pipeline) for one, other in pairs)
    if held == wanted or not (isinstance(held, str) and isinstance(wanted, str)):
        return bool(held == wanted)
    kind, place = _place(wanted)
    moved = pipeline is not None and place.parent == pipeline and place.name == Path(held).name
    return (kind, place) == _place(held) or (moved and not kind)


def _place(text: str) -> tuple[str, Path]:
    """What stands before the path in a data spec such as ``imagefolder:photos``, and the path, resolved."""
    kind, colon, path = text.partition(":")
    try:
        return (kind, Path(path).expanduser().resolve()) if colon else ("", Path(text).resolve())
    except (OSError, ValueError, RuntimeError):  # no path: a null character, a home folder of nobody
        return text, Path()
