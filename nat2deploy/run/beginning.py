"""``begun.json``: what a search began with besides its settings, which says whether it may go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.data.names import shown_name
from nat2deploy.data.sets import ImageData
from nat2deploy.engines.cores import available_cores
from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, write_json
from nat2deploy.run.directory import RunDirectory
from nat2deploy.supernet.checkpoint import supernet_info

_SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Beginning(BaseModel):
    """What a search began with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    """SHA-256 of the labels and of the images that a search sees."""
    threads: int = Field(ge=1)
    """PyTorch's, in which weights are adapted: sums of other numbers differ in their last digits."""


def read_beginning(run: RunDirectory) -> Beginning | None:
    """What a run began with; None where it began before that was kept.

    Raises:
        UserError: a file that cannot be read.
    """
    path = _path(run)
    return parse(Beginning, read_json(path, "run"), f"run {path}") if path.exists() else None


def check_data(run: RunDirectory, data: ImageData) -> None:
    """Check that a run that goes on, is fine-tuned or exported has the data that it began with.

    Raises:
        UserError: accuracies of other images or classes would stand beside those that it holds, and images
            that it trained on might be among those that it is judged on.
    """
    check_labels(run, data)
    held = read_beginning(run)
    if held is not None and held.data != data.fingerprint(test=False):
        raise UserError(
            f"data set {shown_name(data.name)} holds other images than when run {run.path} began; put those "
            f"back, or search anew with another --out (--from {run.path} takes its networks over)"
        )


def check_labels(run: RunDirectory, data: ImageData, tuned: tuple[str, ...] = ()) -> None:
    """Check that data have the classes of a run's weights, if it has any, or those of a ``tuned`` network.

    Raises:
        UserError: other ones.
    """
    labels = tuned or (supernet_info(run.supernet_path).labels if run.supernet_path.exists() else ())
    if labels and labels != data.labels:
        new = [f"'{label}' is new" for label in data.labels if label not in labels]
        gone = [f"'{label}' is gone" for label in labels if label not in data.labels]
        raise UserError(
            f"data set {shown_name(data.name)} has other classes than run {run.path} was searched with "
            f"({', '.join([*new, *gone][:3]) or 'their order'}); put those back, or search anew with "
            f"another --out (--from {run.path} takes its networks over)"
        )


@contextmanager
def as_begun(run: RunDirectory, data: ImageData) -> Iterator[None]:
    """Keep what a run begins with, or go on with it as it began; the run must be locked.

    Inside, PyTorch computes in as many threads as when the run began, but where the environment says how
    many, or where there are fewer cores.
    """
    before = torch.get_num_threads()
    # A run of an older version has no such file, and what it began with is not known.
    if not any(path.exists() for path in (_path(run), run.supernet_path, run.path / "start.json")):
        now = Beginning(data=data.fingerprint(test=False), threads=before)
        write_json(_path(run), now.model_dump(mode="json"))
    held = read_beginning(run)
    said = any(name in os.environ for name in _SAID)
    if held is not None and not said and held.threads <= available_cores():
        torch.set_num_threads(held.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _path(run: RunDirectory) -> Path:
    return run.path / "begun.json"
