"""Judging on a Ray cluster: the workers of a node share one copy of the images."""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch

from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError, first_line
from nat2deploy.search.judges.base import RETRIES, Job, JobRunner, Judge, Judged, Weights
from nat2deploy.search.judges.images import packed_images, unpacked_images
from nat2deploy.search.judges.ray_adapting import RayAdapter
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.version import __version__

_AHEAD = 4
_PATIENCE_S = 8.0
_keys = itertools.count()


class _Sent(NamedTuple):
    """Something in the cluster's object store, and a name that workers keep what they made of it by."""

    key: str
    reference: Any


class RayCluster(Judge):
    """Judges on a cluster, one job a CPU; Ray does a job again whose worker or node is gone.

    ``address`` is ``ray``, the cluster of ``$RAY_ADDRESS`` or else one of this machine alone, which ends with
    the judge; or ``ray://HOST:PORT``.
    """

    def __init__(self, address: str, data: ImageData, options: Mapping[str, Any]) -> None:
        self.ray = _import_ray()
        self._joined = _join(self.ray, address)
        self._task = self.ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_judge)
        tensors, text = packed_images(data)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        with cluster_there(self.ray):
            self._images = self._send((arrays, text, dict(options)))
        self._weights: tuple[int, _Sent] | None = None

    def judge(self, weights: Weights, jobs: Sequence[Job]) -> Generator[Judged]:
        """Yield what is found of the jobs in their order."""
        if not jobs:
            return
        with cluster_there(self.ray):
            if self._weights is None or self._weights[0] != weights.version:
                self._weights = (weights.version, self._send(weights.path.read_bytes()))
            ahead = _AHEAD * max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        sent = self._weights[1]
        waiting: deque[Any] = deque()
        rest = iter(jobs)
        # A batch that is left in the middle runs out by itself: cancelling its tasks can end this process.
        for job in jobs:
            with cluster_there(self.ray):
                for one in itertools.islice(rest, ahead - len(waiting)):
                    reference = self._task.remote(
                        __version__, self._images.key, self._images.reference, sent.key, sent.reference, one
                    )
                    waiting.append(reference)
                found = self._answer(waiting.popleft(), job)
            yield found

    @property
    def adapter(self) -> RayAdapter:
        """Adapts on the cluster."""
        return RayAdapter(self.ray, self._images.reference)

    def close(self) -> None:
        """Leave the cluster; one that this judge started ends."""
        if self._joined:
            self.ray.shutdown()

    def _answer(self, reference: Any, job: Job) -> Judged:
        errors = self.ray.exceptions
        try:
            found: Judged = self.ray.get(reference)
        except errors.RayTaskError as error:
            raise UserError(f"a Ray worker could not judge: {error.cause}") from error
        except errors.RayError as error:
            name = job.architecture.id
            raise UserError(
                f"Ray gave up judging {name} after {RETRIES} more tries ({first_line(error)}); "
                "see that the cluster's nodes stay and have memory left, then go on"
            ) from error
        return found

    def _send(self, value: Any) -> _Sent:
        return _Sent(f"{os.getpid()}-{next(_keys)}", self.ray.put(value))


@contextmanager
def cluster_there(ray: Any) -> Iterator[None]:
    """Inside, a cluster that is gone is said in a line.

    Raises:
        UserError: the connection to it is lost, or its head gives no answer.
    """
    try:
        yield
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise UserError(
            f"the Ray cluster is gone or gives no answer ({first_line(error)}); start it, then go on"
        ) from error


_runners: dict[str, JobRunner] = {}
_supernets: dict[str, Any] = {}


def _judge(version: str, images_key: str, images: Any, weights_key: str, weights: bytes, job: Job) -> Judged:
    """Do one job in a process of the cluster, which keeps what it needs for the next."""
    if version != __version__:
        raise UserError(f"this node has nat2deploy {__version__}, the search {version}; install the same")
    if images_key not in _runners:
        _runners.clear()
        arrays, text, options = images
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # arrays of the object store cannot be written to, nor are they
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        _runners[images_key] = JobRunner(SubNetworkEvaluator(unpacked_images(tensors, text), **options))
    if weights_key not in _supernets:
        _supernets.clear()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "supernet.safetensors"
            path.write_bytes(weights)
            _supernets[weights_key] = load_supernet(path)[0]
    return _runners[images_key](_supernets[weights_key], job)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("workers ray: install it with pip install 'nat2deploy[ray]'") from error
    return ray


def _join(ray: Any, address: str) -> bool:
    """Connect to a cluster; returns False where this process is in one already, which then is used."""
    if ray.is_initialized():
        return False
    options = {} if address == "ray" else {"address": address}
    try:
        if options:
            _reach(address)
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False, **options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise UserError(
            f"workers {address}: no Ray cluster can be joined ({first_line(error)}); "
            "check that it runs, and its address"
        ) from error
    return True


def _reach(address: str) -> None:
    """Connect to ``ray://HOST:PORT`` and leave: Ray itself tries half a minute, whatever is wrong.

    A cluster that has just been started gets a few seconds to listen.

    Raises:
        OSError, ValueError: nobody listens there, or it is no address.
    """
    parts = urlsplit(address)
    if parts.port is None:
        raise ValueError("it names no port; Ray's own is 10001")
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with socket.create_connection((parts.hostname or "", parts.port), timeout=10):
                return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
