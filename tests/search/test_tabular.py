"""The tabular benchmark: exact where judged, honest elsewhere, and refused where broken."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.search.tabular import load_tabular, save_tabular
from nat2deploy.search.tabular_model import TabularModel, cross_validate
from nat2deploy.space.sampling import random_architectures, uniform_depth_genes

IMAGES = 1000


@pytest.fixture
def few_trees(monkeypatch):
    """What is asked here holds for fifty trees as for 250."""
    plain = TabularModel._trees
    monkeypatch.setattr(TabularModel, "_trees", lambda self, seed: plain(self, seed).set_params(max_iter=50))


@pytest.fixture(scope="module")
def info_of(tabular_info):
    return partial(tabular_info, covariance=((1e-6, 5e-7), (5e-7, 1e-6)), images=IMAGES)


@pytest.fixture(scope="module")
def judged(wide_encoding, gene_error):
    """Genes of 300 architectures and how many images they get right, test a little fewer."""
    architectures = random_architectures(wide_encoding, np.random.default_rng(3), 300)
    genes = wide_encoding.encode_all(architectures)
    right = np.rint((1 - gene_error.predict(genes)) * IMAGES).astype(np.int64)
    return architectures, genes, np.stack([right, right - 7], axis=1)


@pytest.fixture(scope="module")
def file(judged, wide_encoding, info_of, tmp_path_factory):
    path = tmp_path_factory.mktemp("tabular") / "some.npz"
    save_tabular(path, info_of(wide_encoding.space), judged[1], judged[2])
    return path


@pytest.fixture(scope="module")
def benchmark(file):
    return load_tabular(file)


def test_a_file_without_one_of_the_splits_is_refused(judged, wide_encoding, info_of, tmp_path):
    info = info_of(wide_encoding.space).model_copy(update={"images": {"test": IMAGES}})
    save_tabular(tmp_path / "odd.npz", info, judged[1], judged[2])
    with pytest.raises(UserError, match=r"odd\.npz: images are of test; make it again"):
        load_tabular(tmp_path / "odd.npz")


def test_a_covariance_that_is_none_is_refused(judged, wide_encoding, tabular_info, tmp_path):
    info = tabular_info(wide_encoding.space, covariance=((1e-6, 5e-3), (5e-3, 1e-6)), images=IMAGES)
    save_tabular(tmp_path / "odd.npz", info, judged[1], judged[2])
    with pytest.raises(UserError, match=r"odd\.npz: residual_covariance is no covariance"):
        load_tabular(tmp_path / "odd.npz")


def test_what_was_judged_is_answered_exactly(benchmark, judged, wide_encoding):
    architectures, genes, right = judged
    assert len(benchmark) == len(architectures)
    assert benchmark.evaluated(genes).all()
    assert (benchmark.accuracies(genes) == right / IMAGES).all()
    answer = benchmark.query(architectures[5])
    assert answer.evaluated
    assert (answer.validation_top1, answer.test_top1) == (right[5, 0] / IMAGES, right[5, 1] / IMAGES)
    assert answer.costs == CostModel(wide_encoding.space, 10, None).costs(architectures[5])


def test_all_else_is_predicted_close_to_the_truth_and_the_same_again(
    benchmark, file, judged, wide_encoding, gene_error
):
    genes = uniform_depth_genes(wide_encoding, np.random.default_rng(9), 400)
    genes = genes[~benchmark.evaluated(genes)]
    assert len(genes) > 300
    found = benchmark.accuracies(genes)
    truth = 1 - gene_error.predict(genes)
    assert np.abs(found[:, 0] - truth).mean() < 0.2 * truth.std()
    assert (load_tabular(file).accuracies(genes[::-1]) == found[::-1]).all()
    assert (found * IMAGES == np.rint(found * IMAGES)).all()  # as if images had been counted
    assert not benchmark.query(wide_encoding.decode(genes[0])).evaluated


def test_noise_is_as_large_as_the_held_out_residuals_and_another_seed_is_another_landscape(
    judged, wide_encoding, info_of, tmp_path
):
    _, genes, right = judged
    covariance = ((4e-4, 2e-4), (2e-4, 4e-4))
    save_tabular(tmp_path / "noisy.npz", info_of(wide_encoding.space, covariance=covariance), genes, right)
    others = uniform_depth_genes(wide_encoding, np.random.default_rng(10), 500)
    one, two = (load_tabular(tmp_path / "noisy.npz", noise_seed=seed) for seed in (0, 1))
    others = others[~one.evaluated(others)]
    noise = one.accuracies(others) - one.model.predict(others)
    assert np.allclose(np.cov(noise.T), covariance, rtol=0.25)
    between = one.accuracies(others) - two.accuracies(others)
    assert np.allclose(between.std(axis=0), np.sqrt(2 * 4e-4), rtol=0.15)
    assert (one.accuracies(genes) == two.accuracies(genes)).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_answer_is_a_share(benchmark, wide_encoding, seed):
    genes = uniform_depth_genes(wide_encoding, np.random.default_rng(seed), 3)
    found = benchmark.accuracies(genes)
    assert found.shape == (3, 2)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.usefixtures("few_trees")
def test_cross_validation_holds_groups_out_together(wide_encoding, judged):
    """Accuracies that a group alone explains cannot be predicted once the group is held out."""
    _, genes, _ = judged
    rng = np.random.default_rng(0)
    twins = np.repeat(genes[:60], 5, axis=0)
    noise = np.repeat(rng.normal(size=60), 5)[:, None]
    together, _ = cross_validate(wide_encoding, twins, noise, np.repeat(np.arange(60), 5))
    apart, _ = cross_validate(wide_encoding, twins, noise, range(300))
    assert together[0].kendall_tau < 0.4 < 0.8 < apart[0].kendall_tau
    assert together[0].architectures == 300


@pytest.mark.usefixtures("few_trees")
def test_what_is_never_held_out_is_not_counted(wide_encoding, judged, gene_error):
    _, genes, right = judged
    groups = [-1] * 100 + list(range(200))
    quality, residuals = cross_validate(wide_encoding, genes, right / IMAGES, groups)
    assert [q.architectures for q in quality] == [200, 200]
    assert residuals.shape == (200, 2)
    assert quality[0].kendall_tau > 0.7
    assert quality[0].rmse == pytest.approx(np.sqrt(np.square(residuals[:, 0]).mean()), abs=1e-6)


@pytest.mark.usefixtures("few_trees")
def test_the_model_is_the_same_each_time(wide_encoding, judged):
    _, genes, right = judged
    one, two = (TabularModel(wide_encoding).fit(genes, right / IMAGES).predict(genes) for _ in range(2))
    assert (one == two).all()


def broken_files(path, good, judged):
    """What a file may be instead."""
    _, genes, right = judged

    def arrays(**changed):
        held = {
            "info": np.array(good.model_dump_json()),
            "genes": genes.astype(np.uint8),
            "validation_right": right[:, 0].astype(np.uint16),
            "test_right": right[:, 1].astype(np.uint16),
        }
        return {key: value for key, value in {**held, **changed}.items() if value is not None}

    def write(**changed):
        with path.open("wb") as stream:
            np.savez_compressed(stream, **arrays(**changed))

    newer = json.loads(good.model_dump_json()) | {"schema_version": 2}
    return {
        "text": lambda: path.write_text("no archive"),
        "empty": lambda: path.write_bytes(b""),
        "no info": lambda: write(info=None),
        "info is no JSON": lambda: write(info=np.array("{")),
        "newer": lambda: write(info=np.array(json.dumps(newer))),
        "pickle": lambda: write(genes=np.array([{"a": 1}], dtype=object)),
        "too few genes": lambda: write(genes=genes[:, :-1].astype(np.uint8)),
        "not canonical": lambda: write(genes=np.full(genes.shape, 200, dtype=np.uint8)),
        "more right than images": lambda: write(test_right=np.full(len(genes), IMAGES + 1, dtype=np.uint16)),
        "other length": lambda: write(test_right=right[:-1, 1].astype(np.uint16)),
        "cut": lambda: (write(), path.write_bytes(path.read_bytes()[:-30])),
    }


BROKEN = (
    *("text", "empty", "no info", "info is no JSON", "newer", "pickle", "too few genes", "not canonical"),
    *("more right than images", "other length", "cut"),
)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_clear_line(kind, wide_encoding, info_of, judged, tmp_path):
    path = tmp_path / "broken.npz"
    broken_files(path, info_of(wide_encoding.space), judged)[kind]()
    with pytest.raises(UserError, match=str(path)):
        load_tabular(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz; check the path"):
        load_tabular(tmp_path / "none.npz")
