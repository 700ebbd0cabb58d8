"""Which input sizes of a block are measured."""

import pytest
from cost_tables import made_up_ms, make_entry, make_table

from nat2deploy.cost.input_sizes import thinned, without_size, work
from nat2deploy.cost.latency import BlockMedians
from nat2deploy.space.lowering import every_signature
from nat2deploy.space.search_space import load_space


@pytest.fixture(scope="module")
def everything():
    space = load_space("ofa-mbv3").restrict(widths=(1.0,))
    return list(every_signature(space, (2, 10, 100, 1000)))


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_what_is_left_out_lies_between_two_that_are_kept(everything, every):
    kept = thinned(everything, every)
    assert [s for s in everything if s in set(kept)] == kept
    medians = BlockMedians({s.key: make_entry(s, made_up_ms(s)) for s in kept})
    for signature in everything:
        assert medians.median_ms(signature) > 0
    assert (len(kept) == len(everything)) == (every == 1)


def test_half_of_the_sizes_are_about_half_of_the_blocks(everything):
    assert 0.5 < len(thinned(everything, 2)) / len(everything) < 0.62


def test_blocks_of_two_sizes_stay_whole():
    space = load_space("nano-me-dp").restrict(resolutions=(28, 32))
    signatures = list(every_signature(space, (10,)))
    assert thinned(signatures, 3) == signatures
    assert {without_size(s).height for s in signatures} == {0}
    assert all(work(s) > 0 for s in signatures)


def test_smooth_latencies_are_interpolated_exactly():
    space = load_space("nano")
    table = make_table(space)
    kept = {s.key for s in thinned(list(every_signature(space, (2, 10, 100, 1000))), 2)}
    assert len(kept) < len(table.entries)
    medians = BlockMedians({key: entry for key, entry in table.entries.items() if key in kept})
    for signature in every_signature(space, (2, 10, 100, 1000)):
        assert medians.median_ms(signature) == pytest.approx(made_up_ms(signature))
