"""A simulated machine: blocks and networks are compiled for real, latencies made up."""

import numpy as np

from nat2deploy.measure.device import Device
from nat2deploy.measure.groups import Block, Overhead
from nat2deploy.measure.interleave import Measurement
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.measure.profiler import profile_space
from nat2deploy.measure.statistics import Summary
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target, fingerprint

OVERHEAD_MS = 0.002


def tiny_space():
    nano = load_space("nano")
    return nano.model_copy(
        update={
            "name": "tiny",
            "resolutions": (28,),
            "stages": nano.stages[:2],
            "expansions": (2.0, 3.0),
            "depths": (1, 2),
        }
    )


class Machine(Device):
    """Stands in for the clock: a block's true cost follows from its signature, a network's from its blocks.

    A network pays the call overhead once and a little for its weights, so plain sums are wrong.
    """

    def __init__(self):
        self.noise = 0.002
        self.speed = 1.0
        self.sessions = []
        self.fail_after = None
        self.metered = False
        self.clocks = ()
        self.drift = 0.01
        self.unsettled = ()
        self.busy = None
        self.finished = []
        self.rng = np.random.default_rng(0)

    def fingerprint(self):
        return fingerprint()

    def warning(self):
        return self.busy

    def finish(self, profile=None):
        self.finished.append(profile)

    def network_ms(self, network):
        compute = sum(self.block_ms(signature) - OVERHEAD_MS for signature in network.signatures)
        weights_mb = sum(s.params for s in network.signatures if s.kind == "mbconv") * 4e-6
        return OVERHEAD_MS + 0.9 * compute + 0.02 * weights_mb

    @staticmethod
    def block_ms(signature):
        return OVERHEAD_MS + 2e-8 * signature.macs + 1e-6 * signature.height * signature.kernel

    def _measure(self, group, progress):
        if self.fail_after is not None and len(self.sessions) >= self.fail_after:
            raise KeyboardInterrupt
        self.sessions.append((list(group.candidates), group.time_limit_s))
        progress(0.5, "round 1")
        summaries = {}
        for name, candidate in group.candidates.items():
            if isinstance(candidate, Overhead):
                true_ms = OVERHEAD_MS
            elif isinstance(candidate, Block):
                true_ms = self.block_ms(candidate.signature)
            else:
                true_ms = self.network_ms(candidate.network)
            median = true_ms * self.speed * (1 + self.noise * self.rng.standard_normal())
            summaries[name] = Summary(
                median, 1.1 * median, 1.2 * median, 0.995 * median, 1.005 * median, 60, 6
            )
        return Measurement(
            summaries=summaries,
            converged={name: name not in self.unsettled for name in summaries},
            noise_floor=self.noise,
            reference_ms=0.1 * self.speed,
            drift=self.drift,
            rounds=6,
            discarded_rounds=0,
            interrupted_share=0.0,
            elapsed_s=1.0,
            **self.energy(group, summaries),
            clocks=self.clocks,
        )

    def energy(self, group, summaries):
        """Two watts, where the machine has a meter and somebody asks."""
        if not group.energy_share:
            return {}
        if not self.metered:
            return {"energy_word": "no meter here"}
        return {
            "energy_mj": {name: 2 * s.median_ms for name, s in summaries.items()},
            "energy_word": "a meter",
        }


def profile(machine, *, partial=None, save=None, progress=None, remark=None, **changes):
    settings = {"calibration_networks": 12, "held_out_networks": 8, "time_limit_s": 30.0, **changes}
    plan = ProfilePlan(tiny_space(), Target(), **settings)
    return profile_space(plan, machine, partial=partial, save=save, progress=progress, remark=remark)


def blocks_of(machine):
    return [name for names, _ in machine.sessions for name in names if "-h" in name]
