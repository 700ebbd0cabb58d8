"""Files of weights and of data sets: safetensors, Once-For-All's checkpoints, idx, CIFAR's, benchmarks."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuzz.inputs import Place, by_head, decoded, joined, loaded, of_json, split
from fuzz.mutation import bytes_
from fuzz.target import Target
from nat2deploy.data.idx import read_idx
from nat2deploy.data.load import load_data
from nat2deploy.search.tabular import Generation, ModelQuality, TabularInfo, load_tabular
from nat2deploy.search.tabular_model import HeldOut
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.supernet.checkpoint import load_supernet, read_metadata, supernet_info
from nat2deploy.supernet.once_for_all import import_once_for_all
from nat2deploy.supernet.saved_network import load_network


def targets(folder: Path, run: Path) -> list[Target]:
    """All of this file; ``run`` is a small finished pipeline."""
    network = next((run / "search/networks").glob("*/network.safetensors"))
    supernet = run / "supernet.safetensors"
    return [
        _described(folder, supernet, "super-networks' descriptions", 2, supernet_info),
        _described(folder, network, "networks' descriptions", 0.2, load_network),
        _damaged(folder, supernet, "super-networks' files", 0.7, load_supernet),
        _checkpoints(folder),
        _idx(folder),
        _cifar(folder),
        _benchmarks(folder),
    ]


def _described(folder: Path, path: Path, name: str, share: float, feed: Any) -> Target:
    """A file whose description is damaged; its weights are those of the whole one."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__")
    place = Place(folder, path.name).feeding(feed)

    def of_either(rng: random.Random, given: bytes) -> bytes:
        description, names = split(given, 2)
        if rng.random() < 0.9:
            return joined(of_json(rng, description), names)
        return joined(description, of_json(rng, names))

    def packed_and_fed(given: bytes) -> None:
        description, names = split(given, 2)
        found = loaded(names)
        if isinstance(found, dict):
            with suppress(RecursionError):
                names = json.dumps({**found, "__metadata__": {"nat2deploy": decoded(description)}}).encode()
        place(struct.pack("<Q", len(names)) + names + tensors)

    return Target(
        name, share, [joined(read_metadata(path, "file"), json.dumps(header))], of_either, packed_and_fed
    )


def _damaged(folder: Path, path: Path, name: str, share: float, feed: Any) -> Target:
    """A file that is damaged in its header, which is a small part, or anywhere."""
    whole = path.read_bytes()
    start, rest = whole[:6000], whole[6000:]
    place = Place(folder, "damaged.safetensors").feeding(feed)

    def fed(given: bytes) -> None:
        head, content = split(given, 2)
        place(content if head == b"whole" else content + rest)

    seeds = [joined("start", start), joined("start", start), joined("whole", whole)]
    return Target(name, share, seeds, by_head({"start": bytes_, "whole": bytes_}), fed)


def _checkpoints(folder: Path) -> Target:
    held = io.BytesIO()
    torch.save({"state_dict": {"first_conv.conv.weight": torch.zeros(4, 3, 3, 3)}}, held)
    space = load_space("ofa-mbv3")

    def feed(path: Path) -> None:
        import_once_for_all(path, space)

    place = Place(folder, "ofa.pth")
    return Target("Once-For-All checkpoints", 1, [held.getvalue()], bytes_, place.feeding(feed))


def _idx(folder: Path) -> Target:
    plain = b"\0\0\x08\x03" + struct.pack(">III", 2, 3, 4) + bytes(range(24))
    place = Place(folder, "images-idx3-ubyte")
    return Target("idx files", 8, [plain, gzip.compress(plain)], bytes_, place.feeding(read_idx))


def _cifar(folder: Path) -> Target:
    """A whole CIFAR-10 of one image a class and batch."""
    rows = [bytes([label]) + bytes(3072) for label in range(10)]
    place = Place(folder / "cifar", "test_batch.bin")
    for number in range(1, 6):
        (place.path.parent / f"data_batch_{number}.bin").write_bytes(b"".join(rows))

    def feed(_: Path) -> None:
        load_data(f"cifar10:{place.path.parent}", validation=10)

    return Target("CIFAR's records", 0.3, [b"".join(rows)], bytes_, place.feeding(feed))


def _benchmarks(folder: Path) -> Target:
    space = load_space("nano")
    genes = IntegerEncoding(space).encode_all([space.smallest(), space.largest()]).astype(np.uint8)
    info = benchmark_info(space).model_dump_json()
    place = Place(folder, "benchmark.npz").feeding(load_tabular)

    def saved(text: str) -> bytes:
        held, right = io.BytesIO(), np.array([5, 7], np.uint16)
        np.savez(held, info=np.array(text), genes=genes, validation_right=right, test_right=right)
        return held.getvalue()

    def feed(data: bytes) -> None:
        head, content = split(data, 2)
        place(content if head == b"file" else saved(decoded(content)))

    seeds = [joined("info", info), joined("info", info), joined("file", saved(info))]
    return Target("tabular benchmarks", 0.5, seeds, by_head({"info": of_json, "file": bytes_}), feed)


def benchmark_info(
    space: SearchSpace,
    *,
    covariance: tuple[tuple[float, ...], ...] = ((1e-4, 0.0), (0.0, 1e-4)),
    images: int = 10,
) -> TabularInfo:
    """The description of a tabular benchmark that was never measured."""
    held_out = HeldOut(kendall_tau=0.9, r2=0.9, rmse=0.001, architectures=10)
    splits = ("validation", "test")
    return TabularInfo(
        space=space,
        classes=10,
        images=dict.fromkeys(splits, images),
        generation=Generation(
            command="python benchmarks/tabular_evaluate.py",
            supernet="some",
            supernet_sha256="0" * 64,
            data="digits",
            data_sha256="1" * 64,
            recalibration_images=10,
            seed=0,
            tool_version="0",
        ),
        model=ModelQuality(held_out=dict.fromkeys(splits, held_out), residual_covariance=covariance),
    )
