"""A table with made-up latencies: nothing is measured in these tests."""

import datetime

from nat2deploy.cost.activations import activation_bytes
from nat2deploy.cost.calibration import Calibration
from nat2deploy.cost.table import Entry, LatencyTable
from nat2deploy.space.lowering import every_signature
from nat2deploy.target import Fingerprint, Target

LADDER = (2, 10, 100, 1000)


def make_entry(signature, median_ms) -> Entry:
    return Entry(
        median_ms=median_ms,
        p95_ms=1.1 * median_ms,
        p99_ms=1.2 * median_ms,
        ci_low_ms=0.99 * median_ms,
        ci_high_ms=1.01 * median_ms,
        samples=100,
        converged=True,
        macs=signature.macs,
        params=signature.params,
        activation_bytes=activation_bytes(signature),
    )


def made_up_ms(signature) -> float:
    """Deterministic, and nowhere near proportional to MACs or parameters."""
    return 0.002 + 1e-8 * signature.macs + 0.001 * ((signature.mid_channels * signature.kernel) % 7)


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
