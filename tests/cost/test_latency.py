from dataclasses import replace

import numpy as np
import pytest
from cost_tables import make_entry

from nat2deploy.cost.latency import BlockLatency, BlockMedians
from nat2deploy.errors import UserError
from nat2deploy.space.lowering import classifier_signature, lower
from nat2deploy.space.search_space import load_space
from nat2deploy.space.signature import BlockSignature


@pytest.fixture
def medians():
    ladder = {2: 0.010, 10: 0.018, 100: 0.108, 1000: 0.558}
    signatures = {count: classifier_signature(64, count) for count in ladder}
    return BlockMedians({signatures[n].key: make_entry(signatures[n], ms) for n, ms in ladder.items()})


@pytest.mark.parametrize(
    ("classes", "expected_ms"),
    [(1, 0.010), (2, 0.010), (6, 0.014), (10, 0.018), (55, 0.063), (1000, 0.558), (3000, 1.558)],
)
def test_classifiers_between_and_beyond_the_measured_counts(medians, classes, expected_ms):
    assert medians.median_ms(classifier_signature(64, classes)) == pytest.approx(expected_ms)


def test_more_classes_are_never_faster_beyond_the_ladder():
    signatures = [classifier_signature(8, 10), classifier_signature(8, 20)]
    falling = BlockMedians({s.key: make_entry(s, ms) for s, ms in zip(signatures, (0.02, 0.01), strict=True)})
    assert falling.median_ms(classifier_signature(8, 10_000)) == pytest.approx(0.01)


def test_one_measured_count_stands_for_all():
    signature = classifier_signature(8, 10)
    one = BlockMedians({signature.key: make_entry(signature, 0.01)})
    assert one.median_ms(classifier_signature(8, 500)) == 0.01


def test_a_block_that_was_not_measured(medians):
    with pytest.raises(UserError, match="no block classifier-i32"):
        medians.median_ms(classifier_signature(32, 10))


def test_input_sizes_in_between_are_interpolated_and_none_beyond():
    block = BlockSignature("mbconv", 24, 72, 40, 5, 2, True, False, "relu", 28, 28)
    sizes = {side: replace(block, height=side, width=side) for side in (16, 28, 40)}
    medians = BlockMedians(
        {
            b.key: make_entry(b, 0.01 + 2e-8 * b.macs + (0.001 if side == 28 else 0))
            for side, b in sizes.items()
        }
    )
    for side in (16, 20, 28, 31, 40):
        between = replace(block, height=side, width=side)
        bump = 0.001 * {16: 0.0, 40: 0.0, 28: 1.0}.get(side, np.nan)
        expected = 0.01 + 2e-8 * between.macs
        if np.isnan(bump):
            assert expected < medians.median_ms(between) < expected + 0.001
        else:
            assert medians.median_ms(between) == pytest.approx(expected + bump)
    for side in (14, 44):
        with pytest.raises(UserError, match="no block mbconv"):
            medians.median_ms(replace(block, height=side, width=side))
    with pytest.raises(UserError, match="no block mbconv"):
        medians.median_ms(replace(block, kernel=3))


def test_sums_without_operations_are_interpolated_in_their_area():
    block = BlockSignature("add", 24, 24, 24, 1, 1, False, False, "none", 10, 10)
    sizes = {side: replace(block, height=side, width=side) for side in (10, 20)}
    medians = BlockMedians({b.key: make_entry(b, 1e-4 * side**2) for side, b in sizes.items()})
    assert medians.median_ms(replace(block, height=15, width=15)) == pytest.approx(1e-4 * 15**2)


def test_a_network_is_the_sum_of_its_calibrated_blocks(table, nano):
    signatures = lower(nano, nano.largest(), 10)
    latency = BlockLatency(table)
    fit = table.calibration
    expected = fit.intercept_ms + sum(
        fit.scale * max(table.entries[s.key].median_ms - fit.call_overhead_ms, 0)
        + (fit.ms_per_weight_mb * s.params * 4e-6 if s.kind == "mbconv" else 0)
        for s in signatures
    )
    assert latency.network_ms(signatures) == pytest.approx(expected, rel=1e-12)


def test_without_calibration_it_is_the_plain_sum(table, nano):
    signatures = lower(nano, nano.smallest(), 100)
    plain = BlockLatency(table.model_copy(update={"calibration": None}))
    assert plain.network_ms(signatures) == pytest.approx(
        sum(table.entries[s.key].median_ms for s in signatures)
    )


def test_other_resolutions_are_not_guessed(table):
    space = load_space("nano")
    with pytest.raises(UserError, match="profile this space again"):
        BlockLatency(table).network_ms(lower(space, space.largest(48), 10))
