"""A table with made-up latencies: nothing is measured in these tests."""

import datetime

import numpy as np

from nat2deploy.cost.calibration import Calibration
from nat2deploy.cost.fitting import fit_table
from nat2deploy.cost.network_entry import NetworkEntry
from nat2deploy.cost.table import LatencyTable
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.lowering import every_signature, lower
from nat2deploy.space.sampling import random_architectures
from nat2deploy.target import Fingerprint, Target
from torture.tiny import made_up_entry as make_entry
from torture.tiny import made_up_ms

LADDER = (2, 10, 100, 1000)


def make_table(space, **changes) -> LatencyTable:
    fields = {
        "space": space.name,
        "space_fingerprint": space.fingerprint,
        "resolutions": space.resolutions,
        "widths": space.widths,
        "target": Target(),
        "fingerprint": Fingerprint(
            cpu="test", flags=[], cores=1, governor="unknown", system="test", libraries={}
        ),
        "nat2deploy": "0.1.0",
        "created": datetime.date(2026, 1, 1),
        "seed": 0,
        "noise_floor": 0.004,
        "drift": 0.01,
        "elapsed_s": 12.5,
        "calibration": Calibration(
            scale=0.95,
            ms_per_weight_mb=0.01,
            call_overhead_ms=0.0015,
            intercept_ms=-0.001,
            networks=24,
            residual=0.01,
        ),
        "entries": {s.key: make_entry(s, made_up_ms(s)) for s in every_signature(space, LADDER)},
    }
    return LatencyTable(**{**fields, **changes})


def true_ms(signatures) -> float:
    """What a whole network takes on the made-up machine: less than the sum of its blocks alone."""
    weights_mb = sum(s.params for s in signatures if s.kind == "mbconv") * 4e-6
    return 0.002 + 0.9 * sum(made_up_ms(s) - 0.0015 for s in signatures) + 0.02 * weights_mb


def make_networks(space, count, role, seed, slower=1.0) -> list[NetworkEntry]:
    drawn = random_architectures(IntegerEncoding(space), np.random.default_rng(seed), count)
    entries = []
    for architecture in drawn:
        median_ms = slower * true_ms(lower(space, architecture, 10))
        entries.append(
            NetworkEntry(
                architecture=architecture.to_json(),
                classes=10,
                role=role,
                median_ms=median_ms,
                p95_ms=1.05 * median_ms + 0.004,
                p99_ms=1.10 * median_ms + 0.010,
                ci_low_ms=0.999 * median_ms,
                ci_high_ms=1.001 * median_ms,
                samples=100,
            )
        )
    return entries


def make_measured_table(space, seed=0, slower=1.0) -> LatencyTable:
    """A table as a profile makes it on a machine that is ``slower`` than the made-up one."""
    entries = {key: entry.scaled(slower) for key, entry in make_table(space).entries.items()}
    networks = make_networks(space, 12, "calibration", seed, slower)
    networks += make_networks(space, 8, "held-out", seed + 100, slower)
    table = make_table(space, entries=entries, networks=tuple(networks), calibration=None)
    fitted, why_not = fit_table(table, space, call_overhead_ms=0.0015 * slower, noise=0.002)
    assert why_not == ""
    return fitted
