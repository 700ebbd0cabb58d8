"""Tables made one, on one scale."""

import pytest
from cost_tables import make_measured_table, make_networks

from nat2deploy.cost.fitting import predict_networks
from nat2deploy.cost.merging import merge_tables
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import load_space


@pytest.fixture(scope="module")
def whole():
    return load_space("nano")


@pytest.fixture(scope="module")
def tables(whole):
    """28 and 32 px, then 32 and 40 px from a slower hour."""
    return [
        make_measured_table(whole.restrict(resolutions=(28, 32)), seed=0),
        make_measured_table(whole.restrict(resolutions=(32, 40)), seed=1, slower=1.2),
    ]


def test_it_covers_both_on_the_first_ones_scale(whole, tables):
    merged, why_not = merge_tables(tables, whole)
    assert why_not == "" and merged.resolutions == (28, 32, 40)
    assert set(merged.entries) == set(tables[0].entries) | set(tables[1].entries)
    space = whole.restrict(resolutions=(28, 32, 40))
    fresh = make_networks(space, 30, "held-out", seed=5)
    predicted = predict_networks(merged, space, fresh)
    assert predicted == pytest.approx([network.median_ms for network in fresh], rel=0.005)
    assert merged.calibration.networks == 24 and merged.certificate.networks == 16
    assert merged.certificate.mape < 0.005


def test_of_two_measurements_the_sharper_one_stays(whole, tables):
    key = next(key for key in tables[0].entries if key in tables[1].entries)
    entry = tables[1].entries[key]
    sharp = entry.model_copy(
        update={"ci_low_ms": entry.median_ms, "ci_high_ms": entry.median_ms, "samples": 7}
    )
    second = tables[1].model_copy(update={"entries": {**tables[1].entries, key: sharp}})
    merged, _ = merge_tables([tables[0], second], whole)
    assert merged.entries[key].samples == 7
    assert merged.entries[key].median_ms == pytest.approx(tables[0].entries[key].median_ms)


def test_what_one_calibrates_on_certifies_no_other(whole, tables):
    seen = [n.model_copy(update={"role": "held-out"}) for n in tables[0].networks if n.role == "calibration"]
    fresh = [n for n in tables[1].networks if n.role == "held-out"]
    second = tables[1].model_copy(update={"networks": (*seen[:5], *fresh)})
    merged, _ = merge_tables([tables[0], second], whole)
    assert merged.certificate.networks == 8 + len(fresh)


def test_nor_with_another_number_of_classes(whole, tables):
    first, second = tables
    seen = next(n for n in first.networks if n.role == "calibration")
    seen = seen.model_copy(update={"role": "held-out", "classes": 17})
    second = second.model_copy(update={"networks": (*second.networks, seen)})
    assert merge_tables([first, second], whole)[0].certificate.networks == 16
    assert merge_tables([second, first], whole)[0].certificate.networks == 16


def between_phases(table, slower):
    """The table as it is when the machine was ``slower`` while it measured the blocks."""
    entries = {key: entry.scaled(slower) for key, entry in table.entries.items()}
    return table.model_copy(update={"entries": entries, "calibration": None})


@pytest.mark.parametrize("known", [True, False])
def test_a_clock_that_changed_between_blocks_and_networks_spoils_nothing(whole, tables, known):
    first, second = (between_phases(table, slower) for table, slower in zip(tables, (0.9, 1.3), strict=True))
    if known:
        first = first.model_copy(update={"network_slowdown": 1.1 / 0.9})
        second = second.model_copy(update={"network_slowdown": 1.1 / 1.3})
    merged, why_not = merge_tables([first, second], whole)
    assert why_not == "" and merged.certificate.networks == 16
    assert merged.certificate.mape < 0.005 and merged.calibration.residual < 0.005
    assert merged.network_slowdown == first.network_slowdown
    once_more, _ = merge_tables([second, first, merged], whole)
    assert once_more.certificate.mape < 0.005


def test_without_a_resolution_in_common_the_reference_tells(whole, tables):
    first = tables[0]
    apart = between_phases(make_measured_table(whole.restrict(resolutions=(40, 48)), seed=1), 1.3)
    pair = [t.model_copy(update={"network_slowdown": s}) for t, s in ((first, 1.0), (apart, 1 / 1.3))]
    merged, why_not = merge_tables(pair, whole)
    assert why_not == "" and merged.certificate.mape < 0.01
    unknown, _ = merge_tables([first, apart], whole)  # then networks go with the blocks
    assert unknown.certificate.mape > 0.03


def test_tables_that_do_not_go_together(whole, tables):
    first, second = tables
    with pytest.raises(UserError, match="two tables or more"):
        merge_tables([first], whole)
    for change, words in (
        ({"space_fingerprint": "0" * 16}, "different spaces"),
        ({"target": second.target.model_copy(update={"threads": 2})}, "different targets"),
        ({"fingerprint": second.fingerprint.model_copy(update={"cpu": "other"})}, "different machines"),
        ({"fingerprint": second.fingerprint.model_copy(update={"libraries": {"onnx": "2"}})}, "library"),
        ({"networks": ()}, None),
    ):
        other = second.model_copy(update=change)
        if words is None:
            merged, _ = merge_tables([first, other], whole)
            assert merged.calibration.networks == 12
            continue
        with pytest.raises(UserError, match=words):
            merge_tables([first, other], whole)


def test_no_blocks_in_common_is_no_scale(whole, tables):
    second = tables[1]
    apart = {key: entry for key, entry in second.entries.items() if key not in tables[0].entries}
    with pytest.raises(UserError, match="share 0 blocks"):
        merge_tables([tables[0], second.model_copy(update={"entries": apart})], whole)


def test_a_hole_in_the_grid_is_found(whole, tables):
    wide = whole.model_copy(update={"widths": (1.0, 1.2)})
    second = tables[1].model_copy(update={"widths": (1.2,)})
    with pytest.raises(UserError, match=r"no table has 28 pixels at width 1\.2"):
        merge_tables([tables[0], second], wide)


def test_tables_without_networks_cannot_be_calibrated(whole, tables):
    old = [table.model_copy(update={"networks": ()}) for table in tables]
    with pytest.raises(UserError, match="no networks to calibrate on"):
        merge_tables(old, whole)


def uncertified(table, **changes):
    return table.model_copy(update={"certificate": None, **changes})


@pytest.mark.parametrize("noise", [None, 0.2])
def test_what_was_too_noisy_or_says_nothing_of_it_is_not_certified(whole, tables, noise):
    first, second = tables
    merged, why_not = merge_tables([first, uncertified(second, network_noise=noise)], whole)
    assert merged.certificate is None and merged.calibration is not None
    assert why_not.startswith("no certificate: ")
    assert ("noise is 20" if noise else "does not say how noisy") in why_not
    assert merged.network_noise == noise
    again, _ = merge_tables([first, merged], whole)  # the merged one does not forget it
    assert again.certificate is None


def test_a_table_of_before_is_as_noisy_as_its_certificate_says(whole, tables):
    old = [table.model_copy(update={"network_noise": None}) for table in tables]
    merged, why_not = merge_tables(old, whole)
    assert why_not == "" and merged.certificate.noise == merged.network_noise == 0.002


def test_noise_of_a_table_that_certifies_nothing_decides_nothing(whole, tables):
    first, second = tables
    fitted = tuple(n for n in second.networks if n.role == "calibration")
    merged, why_not = merge_tables([first, uncertified(second, networks=fitted, network_noise=None)], whole)
    assert why_not == "" and merged.certificate.networks == 8


def test_no_network_counts_twice_and_the_sharper_measurement_stays(whole, tables):
    first, second = tables
    wide = tuple(n.model_copy(update={"ci_high_ms": 1.02 * n.median_ms}) for n in second.networks)
    merged, _ = merge_tables([first, second, second.model_copy(update={"networks": wide})], whole)
    assert merged.certificate.networks == 16 and merged.calibration.networks == 24
    assert max(n.ci_high_ms / n.median_ms for n in merged.networks) < 1.01
    turned, _ = merge_tables([second.model_copy(update={"networks": wide}), second], whole)
    assert max(n.ci_high_ms / n.median_ms for n in turned.networks) < 1.01


def test_clock_changes_and_energy_are_of_all(whole, tables):
    first, second = tables
    entries = {key: e.model_copy(update={"energy_mj": 2.0}) for key, e in second.entries.items()}
    changes = ("governor changed", "boost changed")
    first = first.model_copy(update={"clock_changes": changes[:1], "energy": "no meter"})
    second = second.model_copy(update={"clock_changes": changes, "energy": "a meter", "entries": entries})
    merged, _ = merge_tables([first, second], whole)
    assert merged.clock_changes == changes and merged.energy == "no meter | a meter"
    assert all(merged.entries[key].energy_mj == 2.0 for key in entries)
    assert merge_tables([first, first], whole)[0].energy == "no meter"
    assert merge_tables([t.model_copy(update={"energy": None}) for t in tables], whole)[0].energy is None
