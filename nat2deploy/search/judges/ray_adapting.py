"""Adaptation on a Ray cluster: this process and workers of the cluster share each step's sub-networks."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError, out_of_memory
from nat2deploy.search.judges.base import RETRIES
from nat2deploy.search.judges.images import unpacked_images
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.distributed import LostProcess
from nat2deploy.training.loop import LoopSettings
from nat2deploy.training.shared_step import SubNetworkWorld
from nat2deploy.training.supernet import Sampler, adapt
from nat2deploy.version import __version__

_log = logging.getLogger(__name__)
_TIMEOUT = timedelta(minutes=5)
"""How long one waits for another before it counts as gone."""
_COME = timedelta(minutes=2)
"""How long workers may take to come: the others' work may have all of the cluster's processors."""
_REACH = timedelta(seconds=30)
"""How long a worker tries to reach this process, which may have gone on without it."""
_POLL_S = 0.2
_CAME = "came"


class RayAdapter:
    """``adapt`` on a cluster, with the weights of one process; begun again where a worker is gone.

    It takes at most as many processes as a step has sub-networks, this one included, and is alone where none
    of the cluster's comes. ``images`` is the reference to ``packed_images`` in the object store.
    """

    def __init__(self, ray: Any, images: Any) -> None:
        self.ray = ray
        self.images = images
        self._task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_take_part)

    def __call__(
        self,
        supernet: AnySuperNetwork,
        sampler: Sampler,
        data: ImageData,
        settings: LoopSettings,
        *,
        checkpoint: Path | None = None,
        **more: Any,
    ) -> None:
        """Train a super-network in place, as ``adapt`` does.

        Raises:
            UserError: workers were gone again and again, or cannot take part, or what ``adapt`` raises.
        """
        before = {name: value.clone() for name, value in supernet.state_dict().items()}
        most, left = len(sampler(0)), RETRIES
        while True:
            try:
                # Ray takes an extra process for the driver's part only where the cluster has room for others.
                size = min(most, 1 + int(self.ray.cluster_resources().get("CPU", 0)))
                if size > 1:
                    self._together(size, supernet, sampler, data, settings, checkpoint, more)
                else:
                    adapt(supernet, sampler, data, settings, checkpoint=checkpoint, **more)
                return
            except _FewCame as error:
                most = 1 + error.count
                _log.warning("of the Ray cluster's workers %d came to adapt; these do it", error.count)
            except (LostProcess, ConnectionError, self.ray.exceptions.RayError) as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, UserError):
                    raise UserError(f"a Ray worker could not adapt: {cause}") from error
                if not left:
                    raise UserError(
                        f"workers of the Ray cluster were gone {RETRIES + 1} times while adapting; "
                        "see that its nodes stay and have memory left, then go on"
                    ) from error
                left -= 1
                _log.warning("a Ray worker was gone while adapting; adaptation goes on where it was saved")
                supernet.load_state_dict(before)

    def _together(
        self,
        size: int,
        supernet: AnySuperNetwork,
        sampler: Sampler,
        data: ImageData,
        settings: LoopSettings,
        checkpoint: Path | None,
        more: dict[str, Any],
    ) -> None:
        host = self.ray.util.get_node_ip_address()
        store = dist.TCPStore(host, 0, size, True, _TIMEOUT, wait_for_workers=False)  # type: ignore[attr-defined]
        saved = checkpoint.read_bytes() if checkpoint is not None and checkpoint.exists() else None
        same = {name: value for name, value in more.items() if name != "progress"}
        given = self.ray.put((supernet, sampler, settings, saved, same))
        parts = [
            self._task.remote(
                __version__, self.images, given, host, store.port, rank, size, torch.get_num_threads()
            )
            for rank in range(1, size)
        ]
        self._wait_for(parts, store)
        # Where this process leaves the group the others find that out, and end.
        with _group(store, 0, size) as world:
            adapt(supernet, sampler, data, settings, checkpoint=checkpoint, world=world, **more)
        self.ray.get(parts)

    def _wait_for(self, parts: list[Any], store: Any) -> None:
        """Wait until all parts have come, which Ctrl-C ends, as it does not end joining a group.

        Raises:
            RayError: one has failed.
            _FewCame: some have not come.
        """
        until = time.monotonic() + _COME.total_seconds()
        while (came := store.add(_CAME, 0)) < len(parts):
            ended, _ = self.ray.wait(parts, num_returns=1, timeout=_POLL_S)
            if ended:
                self.ray.get(ended)
            if time.monotonic() > until:
                raise _FewCame(came)


class _FewCame(Exception):
    """Fewer of the cluster's workers came than were asked: ``count``."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


@contextmanager
def _group(store: Any, rank: int, size: int) -> Iterator[SubNetworkWorld]:
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        yield SubNetworkWorld(rank, size)
    except RuntimeError as error:  # of the store or of Gloo: time is up, or a connection is gone
        if out_of_memory(error):
            raise
        raise LostProcess(str(error).splitlines()[0]) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _take_part(
    version: str, images: Any, given: Any, host: str, port: int, rank: int, size: int, threads: int
) -> None:
    """Do one process's part of an adaptation; the first process has the result, and this one forgets it."""
    if version != __version__:
        raise UserError(f"this node has nat2deploy {__version__}, the search {version}; install the same")
    arrays, text, _ = images
    data = unpacked_images({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, text)
    supernet, sampler, settings, saved, more = given
    torch.set_num_threads(threads)
    store = dist.TCPStore(host, port, size, False, _REACH)  # type: ignore[attr-defined]
    store.set_timeout(_TIMEOUT)
    store.add(_CAME, 1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None if saved is None else Path(folder) / "checkpoint"
        if checkpoint is not None and saved is not None:
            checkpoint.write_bytes(saved)
        with _group(store, rank, size) as world:
            adapt(supernet, sampler, data, settings, checkpoint=checkpoint, world=world, **more)
