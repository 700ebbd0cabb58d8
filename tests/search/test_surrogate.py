"""Surrogates learn an error that depends on the genes, and say honestly how well."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from nat2deploy.search import surrogate as module
from nat2deploy.search.surrogate import FLOOR, SURROGATES, best_surrogate, fit_surrogate
from nat2deploy.space.sampling import uniform_depth_genes


@pytest.fixture(scope="module")
def task(wide_encoding, gene_error):
    """Genes and slightly noisy errors to learn from, and genes and errors never shown."""
    rng = np.random.default_rng(0)
    genes = uniform_depth_genes(wide_encoding, rng, 80)
    unseen = uniform_depth_genes(wide_encoding, rng, 60)
    errors = gene_error.predict(genes) + rng.normal(0, 0.005, len(genes))
    return genes, errors, unseen, gene_error.predict(unseen)


@pytest.fixture(scope="module")
def fitted(wide_encoding, task):
    """Every kind, fitted with few folds."""
    genes, errors, *_ = task
    return {name: fit_surrogate(name, genes, errors, wide_encoding, seed=1, folds=4) for name in SURROGATES}


# What each kind reaches on 80 networks, less a margin; chance is 0 ± 0.08.
BARS = {
    "gradient-boosting": 0.5,
    "extra-trees": 0.5,
    "gaussian-process": 0.65,
    "process-trees-ridge": 0.65,
    "bayesian-ridge": 0.65,
    "rbf": 0.8,
    "rbf-ensemble": 0.75,
    "mlp": 0.7,
    "cart-forest": 0.6,
    "decision-tree": 0.25,
    "svr": 0.65,
    "ridge": 0.75,
    "k-nn": 0.55,
    "lightgbm": 0.6,
    "catboost": 0.65,
}


@pytest.mark.parametrize("name", BARS)
def test_tau_is_well_over_chance_and_holds_on_networks_never_seen(fitted, task, name):
    *_, unseen, truth = task
    assert fitted[name].tau > BARS[name]
    assert kendalltau(fitted[name].predict(unseen), truth).statistic > BARS[name]


def test_every_kind_has_a_bar():
    assert set(BARS) == set(SURROGATES)


@pytest.mark.parametrize("name", SURROGATES)
def test_each_fold_votes_and_the_mean_counts(fitted, task, name):
    unseen = task[2]
    votes = fitted[name].votes(unseen)
    assert votes.shape == (4, len(unseen))
    assert votes.dtype == np.float64
    np.testing.assert_allclose(fitted[name].predict(unseen), votes.mean(axis=0))
    assert np.ptp(votes, axis=0).max() > 0  # each member saw other networks


@pytest.mark.parametrize("name", SURROGATES)
def test_the_same_seed_predicts_the_same(wide_encoding, task, name):
    genes, errors, unseen, _ = task
    first, second = (fit_surrogate(name, genes, errors, wide_encoding, seed=7, folds=3) for _ in range(2))
    np.testing.assert_array_equal(first.predict(unseen), second.predict(unseen))
    assert first.tau == second.tau


def test_tau_counts_only_networks_that_the_member_did_not_see(wide_encoding, task):
    genes, errors, *_ = task
    noise = np.random.default_rng(2).permutation(errors)
    honest = fit_surrogate("extra-trees", genes, noise, wide_encoding, seed=1, folds=4)
    assert abs(honest.tau) < 0.3  # with what it was fitted on it would come near 1
    assert kendalltau(honest.predict(genes), noise).statistic > 0.6


def test_equal_errors_have_no_order(wide_encoding, task):
    flat = fit_surrogate("extra-trees", task[0], np.full(80, 0.5), wide_encoding, seed=1, folds=3)
    assert flat.tau == 0.0
    np.testing.assert_allclose(flat.predict(task[2]), 0.5)


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", SURROGATES)
def test_four_networks_are_enough_to_go_on(wide_encoding, task, name):
    few = fit_surrogate(name, task[0][:4], task[1][:4], wide_encoding, seed=1)
    assert len(few.members) == 4
    assert np.isfinite(few.predict(task[2])).all()
    assert -1.0 <= few.tau <= 1.0


def test_the_best_kind_is_the_one_with_the_highest_tau(wide_encoding, task):
    genes, errors, *_ = task
    names = ("gradient-boosting", "bayesian-ridge", "extra-trees")
    taus = {name: fit_surrogate(name, genes, errors, wide_encoding, seed=3).tau for name in names}
    best = best_surrogate(names, genes, errors, wide_encoding, seed=3)
    assert best.tau == max(taus.values())
    assert best.name == max(taus, key=taus.__getitem__)


def test_a_tie_goes_to_the_first_kind(wide_encoding, task, monkeypatch):
    monkeypatch.setitem(module.SURROGATES, "twin", SURROGATES["bayesian-ridge"])
    for names in (("twin", "bayesian-ridge"), ("bayesian-ridge", "twin")):
        assert best_surrogate(names, *task[:2], wide_encoding, seed=0).name == names[0]


def test_one_member_fitted_on_everything_can_vote_alone(wide_encoding, task, fitted):
    genes, errors, unseen, _ = task
    alone = fit_surrogate("ridge", genes, errors, wide_encoding, seed=1, folds=4, ensemble=False)
    assert alone.votes(unseen).shape == (1, len(unseen))
    assert alone.tau == fitted["ridge"].tau
    assert (alone.predict(unseen) != fitted["ridge"].predict(unseen)).any()


def test_the_spread_says_where_members_disagree(fitted, task):
    genes, _, unseen, _ = task
    spread, known = (fitted["rbf"].votes(rows).std(axis=0) for rows in (unseen, genes))
    assert np.median(spread) > np.median(known)  # most members were shown these


@pytest.mark.parametrize("name", ["ridge", "process-trees-ridge"])
def test_the_logarithm_of_errors_can_be_learnt_and_errors_are_predicted(wide_encoding, task, name):
    genes, errors, unseen, truth = task
    small = (errors - errors.min()) ** 2  # none at all, and a few that are many times the others
    found = fit_surrogate(name, genes, small, wide_encoding, seed=1, folds=4, logarithmic=True)
    predicted = found.predict(unseen)
    assert (predicted > -FLOOR).all()
    assert kendalltau(predicted, truth).statistic > BARS[name]
    assert found.tau == pytest.approx(kendalltau(found.predict(unseen), truth).statistic, abs=0.2)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_deviation_is_as_large_as_what_predictions_are_off(wide_encoding, gene_error, logarithmic):
    rng = np.random.default_rng(4)
    genes, unseen = (uniform_depth_genes(wide_encoding, rng, 200) for _ in range(2))
    noisy = (np.exp(np.log(gene_error.predict(g)) + rng.normal(0, 0.1, len(g))) for g in (genes, unseen))
    errors, truth = noisy
    found = fit_surrogate(
        "ridge", genes, errors, wide_encoding, seed=1, folds=5, ensemble=False, logarithmic=logarithmic
    )
    off = found.spread(found.votes(unseen))
    share = np.abs(truth - found.predict(unseen)) < off
    assert 0.55 < share.mean() < 0.8  # of a normal distribution 68 % is within one standard deviation
    relative = off / (found.predict(unseen) + FLOOR)
    assert (np.ptp(relative) < 1e-9) == logarithmic


def test_costs_help_where_they_say_what_errors_follow(wide_encoding):
    rng = np.random.default_rng(5)
    genes, unseen = (uniform_depth_genes(wide_encoding, rng, 60) for _ in range(2))

    def costs_of(rows):
        return {"macs": np.exp(((rows * 7919) % 13).sum(axis=1) / 10)}  # nothing that genes say plainly

    def error(rows):
        return 1 / (1 + np.log(costs_of(rows)["macs"]))

    plain, told = (
        fit_surrogate("extra-trees", genes, error(genes), wide_encoding, seed=1, folds=4, costs_of=costs)
        for costs in (None, costs_of)
    )
    assert told.tau > 0.75 > 0.5 > plain.tau
    assert kendalltau(told.predict(unseen), error(unseen)).statistic > 0.75


@pytest.mark.parametrize("features", ["integer", "one-hot"])
def test_either_features_can_be_asked_for(wide_encoding, task, features):
    found = best_surrogate(("ridge",), *task[:2], wide_encoding, seed=1, folds=5, features=features)
    width = wide_encoding.one_hot(task[0]).shape[1] if features == "one-hot" else len(wide_encoding)
    assert found.features == features
    assert [member.n_features_in_ for member in found.members] == [width] * 5


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("name", SURROGATES)
def test_so_few_networks_are_predicted_too(wide_encoding, task, name, rows):
    genes, errors, unseen, _ = task
    for ensemble in (True, False):
        found = fit_surrogate(name, genes[:rows], errors[:rows], wide_encoding, seed=0, ensemble=ensemble)
        predicted = found.predict(unseen)
        assert np.isfinite(predicted).all() and np.isfinite(found.spread(found.votes(unseen))).all()
        if rows == 1:
            assert found.tau == 0.0
            np.testing.assert_allclose(predicted, errors[0])


@pytest.mark.parametrize("name", SURROGATES)
def test_a_seed_may_be_of_any_size(wide_encoding, task, name):
    genes, errors, unseen, _ = task
    fitted = [
        fit_surrogate(name, genes[:12], errors[:12], wide_encoding, seed=seed, folds=2)
        for seed in (5, 2**31 + 5, 2**32 + 5, 2**70)
    ]
    np.testing.assert_array_equal(fitted[0].predict(unseen), fitted[2].predict(unseen))


def test_of_many_networks_no_more_folds_are_tried_than_say_how_good_it_is(
    wide_encoding, gene_error, monkeypatch
):
    genes = np.unique(uniform_depth_genes(wide_encoding, np.random.default_rng(2), 600), axis=0)
    errors = gene_error.predict(genes)
    tried = []
    fit = module._fitted
    monkeypatch.setattr(module, "_fitted", lambda *given: tried.append(len(given[1])) or fit(*given))
    given = {"seed": 0, "folds": 10}
    whole = fit_surrogate("ridge", genes, errors, wide_encoding, ensemble=False, **given)
    assert len(genes) > 510 and len(tried) == 1 + -(-500 * 10 // len(genes))
    alone = fit_surrogate("ridge", genes[:500], errors[:500], wide_encoding, ensemble=False, **given)
    assert len(fit_surrogate("ridge", genes, errors, wide_encoding, **given).members) == 10
    assert abs(whole.tau - alone.tau) < 0.1
