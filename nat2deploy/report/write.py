"""The front door: from a run to its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nat2deploy.errors import UserError
from nat2deploy.files import write_bytes, write_text
from nat2deploy.report.facts import gather
from nat2deploy.report.page import render
from nat2deploy.report.payload import payload_of
from nat2deploy.report.pictures import PICTURE_FILES, draw_pictures
from nat2deploy.report.reading import read_run


@dataclass(frozen=True)
class Written:
    """What was written; ``problems`` says in words what of the run could not be read."""

    report: Path
    pictures: tuple[Path, ...]
    networks: int
    finished: bool
    problems: tuple[str, ...]


def write_report(run: Path, out: Path | None = None, bundle: Path | None = None) -> Written:
    """Write the report of a search or of a pipeline, and its pictures as PNGs in a folder beside it.

    Whatever the run lacks is left out, so that a search that runs or was stopped has a report, too.

    Args:
        run: the run's folder, of which files are only read.
        out: an ``.html`` file; ``report.html`` of the run when not given.
        bundle: a folder or a zip, where it is not the pipeline's own.

    Raises:
        UserError: no run, no bundle, a place that cannot be written to, or other things where the pictures
            would go.
    """
    out = run / "report.html" if out is None else out
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: a report is an .html file; change its ending")
    folder = out.with_suffix("")
    _check_free(folder, out)
    facts = gather(read_run(run, bundle))
    payload = payload_of(facts)
    pictures = draw_pictures(payload)
    page = render(facts, payload, pictures)
    places = []
    for name, picture in pictures.items():
        place = folder / f"{name}.png"
        write_bytes(place, picture)
        places.append(place)
    write_text(out, page)
    return Written(out, tuple(places), len(facts.rows), facts.finished, tuple(facts.files.problems))


def _check_free(folder: Path, out: Path) -> None:
    """Check that the pictures' folder is not there yet, or holds a report's pictures alone.

    A file more would break a bundle. Hidden files are let be: file managers leave them everywhere.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise UserError(
            f"the pictures of {out} would go into {folder}: {error.strerror or error}; "
            "give --out another name"
        ) from error
    other = next((name for name in names if name not in PICTURE_FILES and not name.startswith(".")), None)
    if other is not None:
        raise UserError(
            f"the pictures of {out} would go into the folder {folder}, which holds {other}; "
            "give --out another name"
        )
