"""A tabular benchmark: searches compared without a network being run.

A file holds the accuracy of thousands of a super-network's sub-networks, each judged for real as a search
judges its candidates. ``load_tabular(path, table)`` reads it, and ``query(architecture)`` answers with
accuracies and costs: exact ones for what was judged, and a fitted model's with its held-out noise for all
else (``evaluated`` says which). ``info`` says what was judged on what, and how good the model is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nat2deploy.cost.model import CostModel, Costs
from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.files import parse, write_atomic
from nat2deploy.search.tabular_model import HeldOut, TabularModel
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.encoding import Genes, IntegerEncoding
from nat2deploy.space.search_space import SearchSpace

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
SPLITS = ("validation", "test")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Generation(_Fields):
    """What the judged accuracies come from."""

    command: str
    supernet: str
    supernet_sha256: Sha256
    data: str
    data_sha256: Sha256
    recalibration_images: int
    seed: int
    tool_version: str


class ModelQuality(_Fields):
    """How the model does on held-out architectures, by split, and the covariance of its residuals there."""

    held_out: dict[str, HeldOut]
    residual_covariance: tuple[tuple[float, float], tuple[float, float]]


class TabularInfo(_Fields):
    """What a benchmark's file says of itself. ``images`` are those of each split that judged."""

    schema_version: Literal[1] = 1
    space: SearchSpace
    classes: Annotated[int, Field(ge=2)]
    images: dict[Literal["validation", "test"], Annotated[int, Field(ge=1)]]
    generation: Generation
    model: ModelQuality


@dataclass(frozen=True)
class TabularAnswer:
    """Accuracies (0 to 1) and costs of an architecture; ``evaluated`` for real, or else predicted."""

    validation_top1: float
    test_top1: float
    costs: Costs
    evaluated: bool


class TabularBenchmark:
    """Answers for every architecture of a space; see ``load_tabular``.

    ``genes`` int64 [N, G] are the judged architectures, ``right`` int64 [N, 2] how many validation and test
    images each got right. ``noise_seed`` draws the noise of what was not judged: another seed is another
    landscape that the held-out errors allow.
    """

    def __init__(
        self, info: TabularInfo, genes: Genes, right: Counts, costs: CostModel, noise_seed: int = 0
    ) -> None:
        self.info = info
        self.space = info.space
        self.encoding = IntegerEncoding(info.space)
        self.genes = genes
        self.right = right
        self.costs = costs
        self.noise_seed = noise_seed
        self.images = np.array([info.images["validation"], info.images["test"]])
        self._rows = {row.tobytes(): i for i, row in enumerate(genes)}
        self._factor = np.linalg.cholesky(np.array(info.model.residual_covariance) + 1e-12 * np.eye(2))

    def __len__(self) -> int:
        """How many architectures were judged for real."""
        return len(self.genes)

    @cached_property
    def model(self) -> TabularModel:
        """The model of what was not judged, fitted when first asked for."""
        return TabularModel(self.encoding).fit(self.genes, self.right / self.images)

    def query(self, architecture: Architecture) -> TabularAnswer:
        """Answer for one architecture.

        Raises:
            ValueError: it is not of the space.
            UserError: the latency table does not cover it.
        """
        genes = self.encoding.encode(architecture)
        accuracies = self.accuracies(genes[None])[0]
        return TabularAnswer(
            float(accuracies[0]),
            float(accuracies[1]),
            self.costs.costs(architecture),
            bool(self.evaluated(genes[None])[0]),
        )

    def evaluated(self, genes: Genes) -> NDArray[np.bool_]:
        """Which of canonical genes [N, G] were judged for real, [N]."""
        return np.array([row.tobytes() in self._rows for row in genes], dtype=np.bool_)

    def accuracies(self, genes: Genes) -> Floats:
        """Validation and test accuracies [N, 2] of canonical genes [N, G]."""
        right = np.empty((len(genes), 2))
        known = np.array([self._rows.get(row.tobytes(), -1) for row in genes], dtype=np.int64)
        right[known >= 0] = self.right[known[known >= 0]]
        if (known < 0).any():
            unknown = genes[known < 0]
            noise = np.stack([self._noise(row) for row in unknown])
            predicted = (self.model.predict(unknown) + noise) * self.images
            right[known < 0] = np.clip(np.rint(predicted), 0, self.images)
        found: Floats = right / self.images
        return found

    def _noise(self, genes: Genes) -> Floats:
        """The residuals [2] of one architecture: normal, and the same whenever it is asked for."""
        digest = hashlib.sha256(genes.astype("<i8").tobytes()).digest()
        rng = np.random.default_rng([self.noise_seed, int.from_bytes(digest[:8], "little")])
        residuals: Floats = self._factor @ rng.standard_normal(2)
        return residuals


def load_tabular(path: Path, table: LatencyTable | None = None, noise_seed: int = 0) -> TabularBenchmark:
    """Read a benchmark. Latencies come from ``table``; without one there are none.

    Raises:
        UserError: missing, broken, or a table of another space.
    """
    what = f"tabular benchmark {path}"
    try:
        with np.load(path, allow_pickle=False) as held:
            text = str(held["info"])
            genes = held["genes"].astype(np.int64)
            right = np.stack([held[f"{split}_right"] for split in SPLITS], axis=1).astype(np.int64)
        value = json.loads(text)
    except FileNotFoundError as error:
        raise UserError(f"no {what}; check the path") from error
    except Exception as error:  # numpy, zipfile and zlib raise a dozen classes
        raise UserError(f"{what} cannot be read; make it again with benchmarks/tabular_build.py") from error
    info = parse(TabularInfo, value, what)
    encoding = IntegerEncoding(info.space)
    if info.images.keys() != set(SPLITS):
        raise UserError(f"{what}: images are of {', '.join(info.images) or 'no split'}; make it again")
    images = np.array([info.images["validation"], info.images["test"]])
    shape_fits = genes.ndim == 2 and genes.shape == (len(right), len(encoding)) and len(genes) > 0
    if not shape_fits or not (encoding.repair(genes) == genes).all() or (right > images).any():
        raise UserError(f"{what}: genes or counts do not fit its space; make it again")
    costs = CostModel(info.space, info.classes, table)
    try:
        return TabularBenchmark(info, genes, right, costs, noise_seed)
    except np.linalg.LinAlgError as error:
        raise UserError(f"{what}: residual_covariance is no covariance; make it again") from error


def save_tabular(path: Path, info: TabularInfo, genes: Genes, right: Counts) -> None:
    """Write genes [N, G] and right images [N, 2] as a compressed .npz without pickle, atomically."""
    arrays: dict[str, Any] = {
        "info": np.array(info.model_dump_json()),
        "genes": genes.astype(np.uint8),
        **{f"{split}_right": right[:, i].astype(np.uint16) for i, split in enumerate(SPLITS)},
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    write_atomic(path, write)
