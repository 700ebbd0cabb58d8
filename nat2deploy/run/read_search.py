"""The settings that a search stored, of a pipeline whose folder was moved with its own table's new place."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.run.config import Files, SearchConfig, as_tuple
from nat2deploy.run.directory import RunDirectory
from nat2deploy.shipped import exists


def read_search(run: RunDirectory) -> SearchConfig:
    """Return a search's settings; where a pipeline's table is not at its old place, with that in its folder.

    Raises:
        UserError: no run there, or settings that cannot be read.
    """
    held = run.read_config(SearchConfig)
    pipeline = run.path.absolute().parent
    if held.table is None or not RunDirectory(pipeline).config_path.exists():
        return held

    def found(file: str) -> str:
        here = pipeline / Path(file).name
        moved = not exists(Path(file)) and Path(file).name != file and here.exists()
        return str(here) if moved else file

    files = tuple(map(found, as_tuple(held.table)))
    table: Files = files[0] if isinstance(held.table, str) else files
    return held.model_copy(update={"table": table})
