"""Small search spaces, and stand-ins for what a search only asks questions of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_searches import SETTINGS, Listener, make_space, save_fresh

from nat2deploy.cost.model import CostModel
from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.search.budget import parse_budgets
from nat2deploy.search.costs import Objectives
from nat2deploy.search.nat2 import Nat2Search
from nat2deploy.search.weights import SearchWeights
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.search_space import SearchSpace


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """Two stages, 400 architectures."""
    return make_space()


@pytest.fixture(scope="session")
def encoding(space) -> IntegerEncoding:
    return IntegerEncoding(space)


@pytest.fixture(scope="session")
def wide_encoding() -> IntegerEncoding:
    """Four stages of one to four layers at three resolutions: far too many to list."""
    wide = make_space(
        "wide",
        stages=4,
        resolutions=(16, 24, 32),
        kernels=(3, 5, 7),
        expansions=(2.0, 3.0, 4.0),
        depths=(1, 2, 3, 4),
    )
    return IntegerEncoding(wide)


class GeneError:
    """A surrogate that knows the truth: each gene takes its own share off the error, depth most."""

    def __init__(self, encoding: IntegerEncoding) -> None:
        self.encoding = encoding
        self.weights = np.random.default_rng(5).uniform(0.5, 1.5, len(encoding))

    def predict(self, genes):
        """Errors [N] in [0.1, 0.9] of canonical genes [N, G]; a higher gene is better, ever less so."""
        share = np.sqrt(genes / np.maximum(1, self.encoding.upper))
        return 0.9 - 0.8 * (share @ self.weights) / self.weights.sum()


@pytest.fixture(scope="session")
def gene_error(wide_encoding) -> GeneError:
    return GeneError(wide_encoding)


@pytest.fixture(scope="session")
def digits() -> ImageData:
    """Sixty training digits; all of validation and test."""
    return load_data("digits", seed=0, base_resolution=16, max_train=60)


@pytest.fixture(scope="session")
def source(space, tmp_path_factory):
    """A super-network of digits."""
    return save_fresh(tmp_path_factory.mktemp("source") / "digits.safetensors", space)


@pytest.fixture(scope="session")
def foreign_source(space, tmp_path_factory):
    """A super-network of two classes that are no digits."""
    path = tmp_path_factory.mktemp("source") / "letters.safetensors"
    return save_fresh(path, space, data="letters", labels=("a", "b"))


@pytest.fixture(scope="session")
def two_widths(space) -> SearchSpace:
    """The same space at two widths."""
    return space.model_copy(update={"widths": (1.0, 2.0)})


@pytest.fixture(scope="session")
def foreign_pair(two_widths, tmp_path_factory):
    """Super-networks of both widths, of classes that are no digits."""
    folder = tmp_path_factory.mktemp("pair")
    return [
        save_fresh(
            folder / f"w{width:g}.safetensors", two_widths, data="letters", labels=("a", "b"), width=width
        )
        for width in (1.0, 2.0)
    ]


class Killed(BaseException):
    """Stands for what ends a process at any moment; nothing may catch it."""


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed


@pytest.fixture(scope="session")
def begin(space, digits, source):
    """A search in a folder, as a new process would set it up."""
    processes = iter(range(10_000))

    def search(
        folder, *budgets, listener=None, settings=SETTINGS, of=source, within=space, metrics=(), judge=None
    ):
        torch.manual_seed(next(processes))  # the global state is another in every process
        objectives = Objectives(
            CostModel(within, digits.classes, None),
            IntegerEncoding(within),
            parse_budgets(list(budgets)),
            metrics or settings.objectives,
            settings.accuracy_only,
        )
        adapter = None if judge is None else judge.adapter
        held = SearchWeights(folder, [of] if isinstance(of, Path) else of, within, digits, settings, adapter)
        return Nat2Search(objectives, held, digits, settings, folder, listener)

    return search


@pytest.fixture(scope="session")
def undisturbed(begin, foreign_source, tmp_path_factory):
    """A search that is left alone, warm-up included: its folder, last archive and statuses."""
    folder = tmp_path_factory.mktemp("undisturbed")
    listener = Listener()
    archive = begin(folder, listener=listener, of=foreign_source).run()
    return folder, archive, listener.seen
