"""Progressive shrinking opens one dimension after the other, the largest choices first."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.training.schedule import (
    Choices,
    extended_progressive_shrinking,
    make_schedule,
    progressive_shrinking,
)


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
        Choices((7,), (6,), (4,), (1,), ((5,),)),
        Choices((3, 5, 7), (6,), (4,), (1,), ((5,),)),
        Choices((3, 5, 7), (6,), (3, 4), (1,), ((5,),)),
        Choices((3, 5, 7), (6,), (2, 3, 4), (1,), ((5,),)),
        Choices((3, 5, 7), (4, 6), (2, 3, 4), (1,), ((5,),)),
        Choices((3, 5, 7), (3, 4, 6), (2, 3, 4), (1,), ((5,),)),
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
    assert layers == {(3, 4.0, 1), (3, 6.0, 1), (7, 4.0, 1), (7, 6.0, 1)}
    assert {depth for architecture in drawn for depth in architecture.depths} == {2, 4}
    assert {architecture.resolution for architecture in drawn} == {160}


def test_the_papers_schedule_line_by_line():
    phases = extended_progressive_shrinking(load_space("ofav2-mbv3"))
    rows = [(p.name, p.epochs, p.learning_rate, p.warmup_epochs, p.subnets_per_step) for p in phases]
    assert rows == [
        ("full", 180, 0.08, 0, 1),
        ("kernel", 120, 0.03, 5, 1),
        ("branches-1", 25, 2.5e-3, 0, 2),
        ("branches-2", 120, 7.5e-3, 5, 2),
        ("exits-1", 25, 1.875e-3, 0, 2),
        ("exits-2", 60, 3.75e-3, 5, 2),
        ("exits-3", 90, 7.5e-3, 5, 2),
        ("exits-4", 120, 1.5e-2, 5, 2),
        ("depth-1", 25, 2.5e-3, 0, 2),
        ("depth-2", 120, 7.5e-3, 5, 2),
        ("expansion-1", 25, 2.5e-3, 0, 4),
        ("expansion-2", 120, 7.5e-3, 5, 4),
    ]


def test_every_other_dimension_is_at_its_maximum_until_its_turn():
    phases = {phase.name: phase.choices for phase in extended_progressive_shrinking(load_space("ofav2-mbv3"))}
    assert phases["full"] == Choices((7,), (6.0,), (4,), (7,), ((1, 2, 3, 4, 5),))
    assert phases["kernel"] == Choices((3, 5, 7), (6.0,), (4,), (7,), ((5,),))
    assert phases["branches-1"].branches == (3, 5, 6, 7)  # two or three of them
    assert phases["branches-2"].branches == (1, 2, 3, 4, 5, 6, 7)
    assert phases["exits-1"].exits == ((4,), (5,))
    assert phases["exits-4"].exits == ((1,), (2,), (3,), (4,), (5,))
    assert phases["exits-4"].depths == (4,)
    assert phases["expansion-2"] == Choices.of(load_space("ofav2-mbv3"))


def test_a_space_with_fewer_exits_has_the_papers_last_steps():
    phases = extended_progressive_shrinking(load_space("nano-ee-b"))
    assert [p.epochs for p in phases if p.name.startswith("exits")] == [60, 90, 120]


def test_schedules_are_chosen_by_name():
    space = load_space("nano-ee-d")
    scaled = make_schedule("scaled", space, epochs=7.0, learning_rate=0.1)
    assert sum(phase.epochs for phase in scaled) == pytest.approx(7.0)
    assert scaled == progressive_shrinking(space, epochs=7.0, learning_rate=0.1)
    paper = make_schedule("eps-paper", space, epochs=7.0, learning_rate=0.1)
    assert paper == extended_progressive_shrinking(space)


@pytest.mark.parametrize("name", ["nano-ee-dp", "nano-me-p"])
def test_samples_of_variants_are_in_the_space_and_reach_every_state(name):
    space, rng = load_space(name), np.random.default_rng(0)
    drawn = [Choices.of(space).sample(space, 1.0, 28, rng) for _ in range(200)]
    assert all(space.contains(architecture) for architecture in drawn)
    assert {architecture.exits for architecture in drawn} == set(space.exit_states)
    layers = [layer for architecture in drawn for stage in architecture.stages for layer in stage]
    assert {layer.branches for layer in layers} == set(space.branch_states)


def test_the_ends_of_a_phase_are_its_own():
    space = load_space("nano-ee-d")
    choices = Choices((3, 5), (3.0, 4.0), (2, 3), (1,), ((3,), (4,)))
    smallest, largest = (choices.extreme(space, 1.0, 28, end) for end in (0, -1))
    assert smallest == Architecture(28, 1.0, ((Layer(3, 3.0),) * 2,) * 3)
    assert largest == space.largest(28)


def test_every_process_gets_the_same_lengths_to_the_last_bit(repository):
    """A killed phase knows its checkpoint by them; sums over a set would follow the hash seed."""
    code = (
        "from nat2deploy.space.search_space import load_space\n"
        "from nat2deploy.training.schedule import progressive_shrinking\n"
        "space = load_space('ofav2-mbv3')\n"
        "print([p.epochs.hex() for p in progressive_shrinking(space, epochs=1.5, learning_rate=0.1)])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(repository)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(seen) == 1
