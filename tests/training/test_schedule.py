"""Progressive shrinking opens one dimension after the other, the largest choices first."""

from __future__ import annotations

import numpy as np
import pytest

from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.training.schedule import Choices, progressive_shrinking


def phases_of(space: SearchSpace, **changes):
    return progressive_shrinking(space.model_copy(update=changes), epochs=20.0, learning_rate=0.1)


@pytest.fixture(scope="module")
def ofa() -> SearchSpace:
    return load_space("ofa-mbv3")


def test_once_for_alls_own_order(ofa):
    phases = phases_of(ofa)
    assert [phase.name for phase in phases] == [
        "full",
        "kernel",
        "depth-1",
        "depth-2",
        "expansion-1",
        "expansion-2",
    ]
    assert [phase.choices for phase in phases] == [
        Choices((7,), (6,), (4,)),
        Choices((3, 5, 7), (6,), (4,)),
        Choices((3, 5, 7), (6,), (3, 4)),
        Choices((3, 5, 7), (6,), (2, 3, 4)),
        Choices((3, 5, 7), (4, 6), (2, 3, 4)),
        Choices((3, 5, 7), (3, 4, 6), (2, 3, 4)),
    ]


def test_only_the_full_network_learns_without_a_teacher(ofa):
    assert [phase.distil for phase in phases_of(ofa)] == [False, True, True, True, True, True]


def test_channels_are_sorted_once_just_before_expansions_open(ofa):
    sorting = [phase.name for phase in phases_of(ofa) if phase.sort_channels]
    assert sorting == ["expansion-1"]


def test_the_last_step_of_a_dimension_is_the_longest_and_rates_fall(ofa):
    length = {phase.name: phase.epochs for phase in phases_of(ofa)}
    assert length["depth-2"] > 2 * length["depth-1"]
    assert length["expansion-2"] > 2 * length["expansion-1"]
    rates = [phase.learning_rate for phase in phases_of(ofa)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert all(phase.warmup_epochs == pytest.approx(phase.epochs / 10) for phase in phases_of(ofa))


SINGLE = {"kernels": (5,), "expansions": (4.0,), "depths": (2,)}


@pytest.mark.parametrize(
    "single", [(), ("kernels",), ("expansions",), ("depths",), ("kernels", "depths"), tuple(SINGLE)]
)
def test_a_dimension_with_one_choice_has_no_phase_and_its_share_goes_to_the_others(ofa, single):
    phases = phases_of(ofa, **{field: SINGLE[field] for field in single})
    words = {phase.name.split("-")[0] for phase in phases}
    names = {"kernels": "kernel", "expansions": "expansion", "depths": "depth"}
    assert words == {"full"} | {name for field, name in names.items() if field not in single}
    assert sum(phase.epochs for phase in phases) == pytest.approx(20.0)
    assert all(phase.epochs > 0 for phase in phases)


def test_a_space_of_one_network_is_trained_whole_and_plainly(ofa):
    (only,) = phases_of(ofa, **SINGLE)
    assert (only.name, only.epochs, only.distil, only.sort_channels) == ("full", 20.0, False, False)


@pytest.mark.parametrize("depths", [(1, 2), (2, 3, 4), (1, 2, 3, 4, 5)])
def test_every_depth_opens_from_the_largest_down(ofa, depths):
    steps = [
        phase.choices.depths for phase in phases_of(ofa, depths=depths) if phase.name.startswith("depth")
    ]
    assert steps == [depths[-count:] for count in range(2, len(depths) + 1)]


def test_the_last_phase_samples_the_whole_space(ofa):
    last = phases_of(ofa)[-1].choices
    assert (last.kernels, last.expansions, last.depths) == (ofa.kernels, ofa.expansions, ofa.depths)


def test_samples_hold_only_what_is_open_and_all_of_it(ofa):
    rng = np.random.default_rng(0)
    choices = Choices((3, 7), (4.0, 6.0), (2, 4))
    drawn = [choices.sample(ofa, 1.0, 160, rng) for _ in range(30)]
    assert all(ofa.contains(architecture) for architecture in drawn)
    layers = {layer for architecture in drawn for stage in architecture.stages for layer in stage}
    assert layers == {(3, 4.0), (3, 6.0), (7, 4.0), (7, 6.0)}
    assert {depth for architecture in drawn for depth in architecture.depths} == {2, 4}
    assert {architecture.resolution for architecture in drawn} == {160}
