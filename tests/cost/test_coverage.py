"""A table serves its own space, and every space whose blocks it holds."""

import numpy as np
import pytest
from cost_tables import make_table

from nat2deploy.cost.coverage import check_serves, check_space
from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space

VARIANTS = [f"nano-{exits}-{body}" for exits in ("se", "ee", "me") for body in ("b", "d", "p", "dp")]


@pytest.fixture(scope="module")
def largest():
    """A table of the space that has every part."""
    return make_table(load_space("nano-me-dp").restrict(resolutions=(28, 32)))


@pytest.mark.parametrize("name", ["nano", *VARIANTS])
def test_the_table_of_the_largest_variant_serves_all(largest, name):
    space = load_space(name).restrict(resolutions=(28, 32))
    check_space(largest, space)
    own = CostModel(space, 10, make_table(space))
    served = CostModel(space, 10, largest)
    encoding = IntegerEncoding(space)
    drawn = random_architectures(encoding, np.random.default_rng(1), 20)
    genes = encoding.encode_all(drawn)
    # Made-up latencies depend on the block alone, so both tables say the same.
    np.testing.assert_allclose(
        served.costs_of_genes(genes, encoding)["latency_ms"],
        own.costs_of_genes(genes, encoding)["latency_ms"],
    )
    assert served.costs(drawn[0]).latency_ms == pytest.approx(own.costs(drawn[0]).latency_ms)
    assert served.cheapest("latency_ms")[1] == pytest.approx(own.cheapest("latency_ms")[1])


@pytest.mark.parametrize("larger", ["nano-ee-b", "nano-se-d", "nano-se-p"])
def test_a_table_that_lacks_a_part_does_not(table, larger):
    with pytest.raises(UserError, match=f"of space 'nano' .* not of '{larger}'"):
        check_serves(table, load_space(larger).restrict(resolutions=(28, 32)))


def test_another_space_is_refused_by_both_names(table):
    with pytest.raises(UserError, match=r"of space 'nano' .* not of 'ofa-mbv3'"):
        check_space(table, load_space("ofa-mbv3"))
    changed = load_space("nano").model_copy(update={"kernels": (3, 5, 7)})
    with pytest.raises(UserError, match="another version of 'nano'"):
        check_space(table, changed.restrict(resolutions=(28, 32)))


def test_a_smaller_version_of_the_space_is_served(table, nano):
    check_space(table, nano.model_copy(update={"kernels": (3,)}))


def test_what_was_not_measured_is_refused(table, nano):
    check_space(table, nano)
    check_space(table, nano.restrict(resolutions=(32,)))
    with pytest.raises(UserError, match="no resolution 40, only 28, 32; profile again"):
        check_space(table, load_space("nano"))
    with pytest.raises(UserError, match=r"no width 1\.2, only 1"):
        table.check_covers(28, 1.2)
