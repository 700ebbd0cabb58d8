import numpy as np
import pytest

from nat2deploy.cost.network_choice import choose_networks
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import lower, total_macs
from nat2deploy.space.search_space import load_space


@pytest.fixture(scope="module")
def chosen():
    space = load_space("nano")
    return space, choose_networks(space, total_macs, np.random.default_rng(0), 30, most_classes=1000)


def test_distinct_and_of_the_space(chosen):
    space, networks = chosen
    assert len({network.architecture for network in networks}) == 30
    for network in networks:
        assert space.contains(network.architecture)
        assert list(network.signatures) == lower(space, network.architecture, network.classes)
        assert 2 <= network.classes <= 1000
    assert len({network.classes for network in networks}) > 15


def test_spread_evenly_over_the_orders_of_magnitude(chosen):
    space, networks = chosen
    macs = np.array(sorted(total_macs(network.signatures) for network in networks), dtype=float)
    smallest = total_macs(lower(space, space.smallest(), 2))
    largest = total_macs(lower(space, space.largest(), 1000))
    step = (largest / smallest) ** (1 / 30)
    assert macs[0] < smallest * step
    assert macs[-1] > largest / step
    assert (macs[1:] / macs[:-1]).max() < step**2


def test_what_was_seen_is_left_out(chosen):
    space, networks = chosen
    seen = {network.architecture for network in networks}
    again = choose_networks(space, total_macs, np.random.default_rng(0), 30, most_classes=1000, exclude=seen)
    assert len(again) == 30 and seen.isdisjoint(network.architecture for network in again)
    one = space.model_copy(
        update={"resolutions": (28,), "kernels": (3,), "expansions": (2.0,), "depths": (1,)}
    )
    only = {one.smallest()}
    assert choose_networks(one, total_macs, np.random.default_rng(0), 3, most_classes=10, exclude=only) == []


def test_in_random_order(chosen):
    _, networks = chosen
    macs = [total_macs(network.signatures) for network in networks]
    assert abs(np.corrcoef(macs, np.arange(30))[0, 1]) < 0.6


def test_the_seed_decides():
    space = load_space("nano")

    def ids(seed):
        rng = np.random.default_rng(seed)
        return [n.architecture.id for n in choose_networks(space, total_macs, rng, 8, most_classes=10)]

    assert ids(3) == ids(3)
    assert ids(3) != ids(4)


def test_a_space_with_fewer_networks_gives_them_all():
    space = load_space("nano").model_copy(
        update={"resolutions": (28, 32), "kernels": (3,), "expansions": (2.0,), "depths": (1,)}
    )
    networks = choose_networks(space, total_macs, np.random.default_rng(0), 9, most_classes=10)
    assert sorted(network.architecture.resolution for network in networks) == [28, 32]


@pytest.mark.parametrize("predicted_ms", [0.0, -0.5])
def test_predictions_of_no_time_are_refused_in_words(chosen, predicted_ms):
    space, _ = chosen
    with pytest.raises(UserError, match="predicted to take no time at all"):
        choose_networks(space, lambda _: predicted_ms, np.random.default_rng(0), 8, most_classes=10)
