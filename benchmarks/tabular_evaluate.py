"""Judge thousands of sub-networks for the tabular benchmark, as a search judges its candidates.

    python benchmarks/tabular_evaluate.py --out evaluated &
    python benchmarks/tabular_evaluate.py --out evaluated --backward &

Inherited weights, BN recalibrated on 2,000 training images; the whole validation split, and test images drawn
once, stratified. With early exits the first stages of an architecture are an architecture too, and networks
with the same first stages share everything before the stage in which they differ, batch-norm statistics
included. So architectures are drawn as a tree, and each costs the work of its last stage alone; that each
accuracy is what ``SubNetworkEvaluator`` finds is a test (test_tabular_evaluate.py).

Every first stage at every resolution is judged. Later stages are drawn by systematic sampling over the
stage's MACs, each depth as likely as another. Trees come in an order in which the first N spread over the
costs, whatever N; ``--backward`` goes through them from the end, so that two processes meet. One line is
added for each network: kill it at any time, and start it again to go on. ``--known FILE.npz`` leaves out
what an earlier benchmark's file holds; ``tabular_build.py --known`` puts both together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nat2deploy.blocks import run_network
from nat2deploy.data.batches import batches
from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.search.tabular import load_tabular
from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.lowering import lower, total_macs
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator
from nat2deploy.training.recalibrate import recalibrate

Stage = tuple[Layer, ...]
BRANCHING = (3, 1, 1)
RECALIBRATION_IMAGES = 2000
TEST_IMAGES = 5000
BATCH = 50  # activations of this many images stay in the processor's cache


@dataclass(frozen=True)
class Node:
    """An architecture, and those that go on from it by one stage."""

    architecture: Architecture
    children: tuple[Node, ...] = ()


def stage_choices(space: SearchSpace) -> list[Stage]:
    """Every choice of one stage's layers."""
    layers = [Layer(kernel, expansion) for kernel in space.kernels for expansion in space.expansions]
    return [stage for depth in space.depths for stage in itertools.product(layers, repeat=depth)]


def draw_trees(space: SearchSpace, classes: int, branching: tuple[int, ...], seed: int) -> list[Node]:
    """One tree a first stage and resolution, in which a node of level k has ``branching[k]`` children.

    The largest architecture is in the tree of the largest first stage.
    """
    choices = stage_choices(space)

    def macs(architecture: Architecture) -> int:
        return total_macs(lower(space, architecture, classes))

    def grown(parent: Architecture, stage: Stage) -> Architecture:
        return Architecture(parent.resolution, parent.width, (*parent.stages, stage))

    @lru_cache  # MACs add up: whatever stands before it, a stage's choices are in the same order
    def ordered(resolution: int, width: float, level: int) -> list[Stage]:
        parent = Architecture(resolution, width, choices[:1] * level)
        return sorted(choices, key=lambda stage: macs(grown(parent, stage)))

    def children(parent: Architecture, rng: np.random.Generator) -> tuple[Node, ...]:
        level = len(parent.stages)
        if level == len(space.stages):
            return ()
        count = branching[level - 1]
        options = ordered(parent.resolution, parent.width, level)
        share = {depth: sum(len(stage) == depth for stage in options) for depth in space.depths}
        weights = np.cumsum([1 / share[len(stage)] for stage in options])
        quantiles = (np.arange(count) + rng.random(count)) / count * weights[-1]
        drawn = {options[index]: None for index in np.searchsorted(weights, quantiles)}
        if (
            all(stage == choices[-1] for stage in parent.stages)
            and parent.resolution == space.resolutions[-1]
        ):
            drawn = {choices[-1]: None, **drawn}
        return tuple(Node(grown(parent, stage), children(grown(parent, stage), rng)) for stage in drawn)

    roots = [Architecture(r, w, (s,)) for r in space.resolutions for w in space.widths for s in choices]
    roots.sort(key=macs)
    return [
        Node(root, children(root, np.random.default_rng([seed, place, 31])))
        for place, root in ((place, roots[place]) for place in bit_reversed(len(roots)))
    ]


def bit_reversed(count: int) -> list[int]:
    """0 to ``count`` - 1, such that any first part of it is evenly spread."""
    bits = max(1, (count - 1).bit_length())
    reversed_ = (int(format(place, f"0{bits}b")[::-1], 2) for place in range(2**bits))
    return [place for place in reversed_ if place < count]


@dataclass(frozen=True)
class Activations:
    """What the next stage sees: batches [B, C, h, w] of recalibration, then those that are judged."""

    recalibration: list[Tensor]
    judged: list[Tensor]


class Part(nn.Module):
    """One stage and the exit behind it; keeps the stage's outputs."""

    def __init__(self, layers: nn.ModuleList, exit_: nn.Module, dense: bool) -> None:
        super().__init__()
        self.layers, self.exit, self.dense = layers, exit_, dense
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        (y,) = run_network(x, nn.Identity(), [list(self.layers)], {1: nn.Identity()}, dense=self.dense)
        self.kept.append(y)
        return self.exit(y)

    def run(self, inputs: Activations) -> tuple[list[Tensor], Activations]:
        """Recalibrate, then return the logits of the judged batches, and the stage's outputs."""
        recalibrate(self, inputs.recalibration)
        recalibration, self.kept = self.kept, []
        with torch.inference_mode():
            logits = [self(x) for x in inputs.judged]
        return logits, Activations(recalibration, self.kept)


class TreeJudge:
    """Judges trees on the validation split and on ``test_images`` of the test split."""

    def __init__(self, supernet: SuperNetwork, data: ImageData, *, seed: int, test_images: int) -> None:
        self.supernet = supernet
        self.data = data
        self.recalibration = SubNetworkEvaluator(
            data, seed=seed, recalibration_images=RECALIBRATION_IMAGES
        ).recalibration
        self.splits = {"validation": data.validation, "test": data.test.subset(test_images, seed)}
        self._stems: dict[int, Activations] = {}

    def __call__(self, root: Node) -> Iterator[tuple[Architecture, dict[str, float | int]]]:
        """Yield each architecture of a tree with its figures."""
        yield from self._walk(root, self._stem(root.architecture))

    def _walk(self, node: Node, inputs: Activations) -> Iterator[tuple[Architecture, dict[str, float | int]]]:
        network = self.supernet.extract(node.architecture).to(memory_format=torch.channels_last)
        number = len(node.architecture.stages)
        part = Part(network.stages[-1], network.exits[str(number)], network.dense)
        logits, outputs = part.run(inputs)
        yield node.architecture, self._figures(torch.cat(logits))
        del logits
        for child in node.children:
            yield from self._walk(child, outputs)

    def _figures(self, logits: Tensor) -> dict[str, float | int]:
        figures: dict[str, float | int] = {}
        for name, split in self.splits.items():
            own, logits = logits[: len(split)], logits[len(split) :]
            figures[f"{name}_right"] = int((own.argmax(1) == split.targets).sum())
            figures[f"{name}_loss"] = round(float(F.cross_entropy(own, split.targets)), 6)
        return figures

    def _stem(self, architecture: Architecture) -> Activations:
        """The stem's outputs at a resolution; the same for all architectures."""
        resolution = architecture.resolution
        if resolution not in self._stems:
            network = self.supernet.extract(architecture).to(memory_format=torch.channels_last)
            part = Part(nn.ModuleList(network.stem), nn.Identity(), dense=False)
            images = [
                self._images(self.recalibration, resolution, min(250, len(self.recalibration)), 0),
                [x for split in self.splits.values() for x in self._images(split, resolution, BATCH, None)],
            ]
            _, self._stems[resolution] = part.run(Activations(*images))
        return self._stems[resolution]

    def _images(self, split: Split, resolution: int, batch_size: int, shuffle: int | None) -> list[Tensor]:
        stream = batches(
            split,
            batch_size=batch_size,
            resolution=resolution,
            normalisation=self.data.normalisation,
            shuffle_seed=shuffle,
            drop_last=shuffle is not None,
        )
        return [x.contiguous(memory_format=torch.channels_last) for x, _ in stream]


def count(node: Node) -> int:
    """How many architectures a tree holds."""
    return 1 + sum(map(count, node.children))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--supernet", default="nano-ee-d-fashion-mnist", help="a file, or a shipped name")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--test-images", type=int, default=TEST_IMAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backward", action="store_true", help="begin with the last tree")
    parser.add_argument("--known", type=Path, help="a benchmark's file, whose networks are left out")
    parser.add_argument("--out", type=Path, required=True, help="folder of forward.jsonl and backward.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    supernet, info = load_supernet(find_supernet(arguments.supernet))
    data = load_data(arguments.data, base_resolution=max(info.space.resolutions))
    trees = draw_trees(supernet.space, info.classes, BRANCHING, arguments.seed)
    judge = TreeJudge(supernet, data, seed=arguments.seed, test_images=arguments.test_images)
    arguments.out.mkdir(parents=True, exist_ok=True)
    own = arguments.out / f"{'backward' if arguments.backward else 'forward'}.jsonl"
    _cut_unfinished_line(own)
    known: set[str] = set()
    if arguments.known is not None:
        held = load_tabular(arguments.known)
        known = {held.encoding.decode(genes).id for genes in held.genes}
    total, judged = sum(map(count, trees)), 0
    with own.open("a", encoding="utf-8") as stream:
        for tree in reversed(trees) if arguments.backward else trees:
            done = known | _done(arguments.out)
            if _finished(tree, done):
                continue
            for architecture, figures in judge(tree):
                judged += 1
                if architecture.id not in done:
                    line = {"id": architecture.id, "architecture": architecture.to_json(), **figures}
                    stream.write(json.dumps(line) + "\n")
                    stream.flush()
            each = time.process_time() / judged
            print(
                f"{len(known | _done(arguments.out))} of {total}; {each:.2f} s of processor time each",
                flush=True,
            )


def _finished(tree: Node, done: set[str]) -> bool:
    return tree.architecture.id in done and all(_finished(child, done) for child in tree.children)


def _done(folder: Path) -> set[str]:
    """Ids of what any process has judged."""
    texts = [path.read_bytes() for path in folder.glob("*.jsonl")]
    return {json.loads(line)["id"] for text in texts for line in text[: text.rfind(b"\n") + 1].splitlines()}


def _cut_unfinished_line(path: Path) -> None:
    """Drop what a killed process left of a line."""
    text = path.read_bytes() if path.exists() else b""
    if not text.endswith(b"\n") and text:
        path.write_bytes(text[: text.rfind(b"\n") + 1])


if __name__ == "__main__":
    main()
