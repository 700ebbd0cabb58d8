"""What the tests of whole searches share: small settings, a listener that can end one, what one leaves."""

from __future__ import annotations

import json

import torch

from nat2deploy.search.nat2 import Status
from nat2deploy.search.settings import SearchSettings
from nat2deploy.space.search_space import FirstBlockSpec, HeadSpec, SearchSpace, StageSpec, StemSpec
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet
from nat2deploy.supernet.network import SuperNetwork

SETTINGS = SearchSettings(
    archive_size=7,
    candidates=3,
    rounds=2,
    surrogates=("bayesian-ridge",),
    population=8,
    generations=3,
    top=4,
    warmup_epochs=1.5,
    adapt_epochs=1.0,
    batch_size=20,
    recalibration_images=40,
    validation_images=50,
)


class Listener:
    """Notes every status, and ends the search at a chosen one."""

    def __init__(self, kill=None, killed=KeyboardInterrupt) -> None:
        self.seen: list[Status] = []
        self.kill = kill
        self.killed = killed

    def __call__(self, status) -> None:
        self.seen.append(status)
        if self.kill is not None and self.kill(status, len(self.seen)):
            raise self.killed


def lines(folder):
    return (folder / "archive.jsonl").read_text().splitlines()


def result(folder):
    """All that a search leaves for others to read."""
    archive = lines(folder)
    return (
        archive,
        json.loads((folder / "history.json").read_text()),
        (folder / "supernet.safetensors").read_bytes(),
    )


def save_fresh(path, space, *, data="digits", labels=tuple("0123456789"), seed=0, width=1.0):
    """An untrained super-network's file, said to come from a data set."""
    torch.manual_seed(seed)
    supernet = SuperNetwork(space, width, len(labels))
    info = SuperNetworkInfo(
        space=supernet.space, width=width, classes=len(labels), data=data, labels=labels, version=7
    )
    save_supernet(path, supernet, info)
    return path


def make_space(
    name="tiny", *, stages=2, resolutions=(16,), kernels=(3, 5), expansions=(2.0, 3.0), depths=(1, 2)
):
    """A space of few channels."""
    return SearchSpace(
        name=name,
        resolutions=resolutions,
        widths=(1.0,),
        kernels=kernels,
        expansions=expansions,
        depths=depths,
        stem=StemSpec(channels=8, stride=2, activation="hswish"),
        first_block=FirstBlockSpec(channels=8, kernel=3, activation="relu"),
        stages=tuple(
            StageSpec(channels=8 * (i + 1), stride=1 + i % 2, se=bool(i % 2), activation="hswish")
            for i in range(stages)
        ),
        head=HeadSpec(expansion=2, features=2, activation="hswish"),
    )
