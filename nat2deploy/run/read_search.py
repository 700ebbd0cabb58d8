"""The settings that a search stored; of a pipeline whose folder was moved or copied with its own table."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.errors import UserError
from nat2deploy.files import read_toml
from nat2deploy.run.config import Files, SearchConfig, as_tuple
from nat2deploy.run.directory import RunDirectory
from nat2deploy.shipped import exists


def read_search(run: RunDirectory) -> SearchConfig:
    """Return a search's settings; of a pipeline that made its table itself, with the one in its folder now.

    Another table that is not at its old place is looked for there, too.

    Raises:
        UserError: no run there, or settings that cannot be read.
    """
    held = run.read_config(SearchConfig)
    pipeline = run.path.absolute().parent
    if held.table is None or not RunDirectory(pipeline).config_path.exists():
        return held

    own = run.path.absolute().name == "search" and _made_its_table(pipeline)

    def found(file: str) -> str:
        here = pipeline / Path(file).name
        gone = not exists(Path(file)) and Path(file).name != file
        # That of a copy is its own: the folder that it was copied from may have been made anew since.
        copied = own and here.name == "table.json"
        return str(here) if (gone or copied) and here.exists() else file

    files = tuple(map(found, as_tuple(held.table)))
    table: Files = files[0] if isinstance(held.table, str) else files
    return held.model_copy(update={"table": table})


def _made_its_table(pipeline: Path) -> bool:
    """Whether a pipeline's folder holds a table that it made itself, as far as its settings can be read."""
    try:
        profile = read_toml(pipeline / "config.toml", "run config").get("profile", {})
    except UserError:
        return False
    return isinstance(profile, dict) and not (profile.get("table") or profile.get("tables"))
