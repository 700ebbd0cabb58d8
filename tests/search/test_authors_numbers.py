"""What the authors' code does beside its settings, line by line: a changed part is no longer theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nat2deploy.data.load import load_data
from nat2deploy.search import survival
from nat2deploy.search.distribution import families
from nat2deploy.search.hypervolume import HypervolumeMeter
from nat2deploy.search.initialisation import INITIALISATIONS, always_drawn
from nat2deploy.search.regressors import SURROGATES
from nat2deploy.search.searchers import make_searcher
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.survival import reference_directions, survivors
from nat2deploy.search.tradeoff import EPSILON
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.search_space import load_space
from nat2deploy.training.loop import LoopSettings, _optimiser
from nat2deploy.training.losses import exit_weights

AUTHORS = ["nat", "nat2"]
EE = load_space("ofav2-mbv3-ee-d")


@pytest.mark.parametrize("preset", AUTHORS)
def test_every_first_archive_holds_the_smallest_and_the_largest(preset, space, begin, tmp_path):
    settings = SearchSettings(preset=preset)
    objectives = begin(tmp_path, metrics=("params", "macs")).objectives
    drawn = INITIALISATIONS[settings.initialisation](settings.repair).draw(
        objectives, np.random.default_rng(0), 10
    )
    assert drawn[:2] == [space.smallest(), space.largest()] == always_drawn(objectives)


@pytest.mark.parametrize(("preset", "shares"), [("nat", (0.01, 0.18, 0.81)), ("nat2", (1 / 3, 2 / 9, 4 / 9))])
def test_depths_of_the_first_draws(preset, shares):
    settings = SearchSettings(preset=preset)
    encoding = IntegerEncoding(load_space("ofa-mbv3"))

    class Drawn:
        def __init__(self) -> None:
            self.encoding = encoding

    initialisation = INITIALISATIONS[settings.initialisation](settings.repair)
    genes = initialisation._draw(Drawn(), np.random.default_rng(1), 5000)
    depths = (encoding.layers(genes) != 0).sum(-1)
    # 25,000 stages: the standard error is at most 0.0032.
    assert [(depths == depth).mean() for depth in (2, 3, 4)] == pytest.approx(shares, abs=0.013)


@pytest.mark.parametrize("preset", AUTHORS)
@pytest.mark.parametrize(("objectives", "searcher"), [(1, "GA"), (2, "NSGA2"), (3, "NSGA3"), (4, "NSGA3")])
def test_the_inner_search_is_by_the_number_of_objectives(preset, objectives, searcher):
    settings = SearchSettings(preset=preset)
    made = make_searcher(settings.searcher, reference_directions(objectives, 6), pop_size=settings.population)
    assert type(made).__name__ == searcher and made.pop_size == 100


def test_survival_is_by_the_number_of_objectives(monkeypatch):
    used = []
    for name in ("RankAndCrowding", "ReferenceDirectionSurvival"):
        kind = getattr(survival, name)
        monkeypatch.setattr(survival, name, lambda *a, kind=kind, name=name: used.append(name) or kind(*a))
    for width in (1, 2, 3):
        points = np.random.default_rng(0).random((30, width))
        kept = survivors(points, np.zeros(30), 10, seed=0)
        if width == 1:
            assert set(kept) == set(np.argsort(points[:, 0])[:10])
    assert used == ["RankAndCrowding", "ReferenceDirectionSurvival"]


def test_more_than_two_objectives_have_riesz_directions(monkeypatch):
    asked = []
    real = survival.get_reference_directions
    monkeypatch.setattr(
        survival, "get_reference_directions", lambda name, *a, **k: asked.append(name) or real(name, *a, **k)
    )
    survival._riesz.cache_clear()
    assert reference_directions(3, 7).shape == (7, 3)
    assert asked == ["energy"]


@pytest.mark.parametrize("preset", AUTHORS)
def test_the_surrogate_is_lightgbm_with_huber_loss(preset):
    pytest.importorskip("lightgbm")
    (name,) = SearchSettings(preset=preset).surrogates
    assert SURROGATES[name][0](0).regressor.objective == "huber"


def test_all_twelve_surrogates_of_the_comparison_are_there():
    theirs = {
        *("rbf", "rbf-ensemble", "mlp", "cart-forest", "decision-tree", "gaussian-process", "svr", "ridge"),
        *("k-nn", "bayesian-ridge", "lightgbm", "catboost"),
    }
    assert len(theirs) == 12 and theirs <= SURROGATES.keys()


def test_distributions_are_fitted_from_all_of_scipys():
    assert {"norm", "beta", "gamma", "uniform", "expon", "laplace"} <= set(families()) and len(
        families()
    ) > 80


def test_momentum_is_09():
    optimiser = _optimiser(torch.nn.Linear(2, 2), LoopSettings(epochs=1, learning_rate=1e-3))
    assert isinstance(optimiser, torch.optim.SGD)
    assert {group["momentum"] for group in optimiser.param_groups} == {0.9}


@pytest.mark.parametrize("preset", AUTHORS)
def test_exit_weights_of_five_exits(preset):
    order = SearchSettings(preset=preset).exit_weights
    found = exit_weights(EE.exit_stages, len(EE.stages), order)
    assert found == pytest.approx((0.34, 0.27, 0.20, 0.13, 0.06))


def test_widths_are_10_and_12_and_a_gene_chooses():
    encoding = IntegerEncoding(EE)
    assert EE.widths == (1.0, 1.2) and encoding.upper[1] == 1
    genes = encoding.encode(EE.largest())
    assert encoding.decode(genes).width == 1.2
    genes[1] = 0
    assert encoding.decode(genes) == EE.largest(width=1.0)


def test_the_hypervolumes_reference_is_101_hundredths_of_the_worst():
    meter = HypervolumeMeter(np.array([[0.5, 200.0], [1.0, 100.0]]))
    assert meter.reference == pytest.approx([1.01, 202.0])
    assert meter(np.array([[0.505, 101.0]])) == pytest.approx(0.25)


@pytest.mark.parametrize("preset", AUTHORS)
def test_four_high_tradeoff_points_of_radius_an_eighth(preset):
    assert (SearchSettings(preset=preset).tradeoff_points, EPSILON) == (4, 0.125)


def test_validation_is_5000_images_of_cifar_and_15_hundredths_of_a_folder():
    from nat2deploy.data import load

    assert load._STANDARD["cifar10"][1] == load._STANDARD["cifar100"][1] == 5000
    assert load._FOLDER_SHARE == 0.15
    assert load_data("digits").validation.images.shape[0] > 0  # never judged on what it trains on
