"""8 bits where they pay: the other layers stay in float, found by measuring the target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from nat2deploy.deploy.quantisable import Model, Quantisable
from nat2deploy.measure.statistics import FEWEST_ROUNDS, Summary

Measure = Callable[[Sequence[Model]], Sequence[Summary]]
"""Latencies of models on the target, measured side by side."""
Progress = Callable[[str], None]

_Layers = frozenset[str]
_AT_ONCE = 24  # all are in memory
# The same model compiled twice may differ by some percent, by where its memory lies.
_COMPILED = 3
_ROUNDS = 4  # a size; what is found later is hardly worth the minutes


def slower_in_8_bits(
    quantiser: Quantisable[Model],
    measure: Measure[Model],
    *,
    in_float: Collection[str] = (),
    progress: Progress = lambda text: None,
) -> tuple[str, ...]:
    """Find the layers to leave in float for the lowest latency, in the order of the network.

    A layer's kernel may be slower in 8 bits, and conversions cost time wherever 8 bits and float meet, so
    that it depends on its neighbours whether a layer pays. All in float is begun with, or all in 8 bits where
    that is faster. Then parts of the network change to the other side, halves at first and single layers at
    last, as long as that makes it faster. Faster means that each of three compilations is faster than each of
    the three that it is held against, by chance alone one time in twenty; the result once more against what
    was begun with.

    Args:
        quantiser: of the network.
        measure: on the target.
        in_float: layers that stay in float in any case, and are not among those found.
        progress: told what is tried.

    Raises:
        UserError: the network cannot be quantised, or does not compile.
    """
    kept = frozenset(in_float)
    layers = tuple(layer for layer in quantiser.layers if layer not in kept)

    def faster(best: _Layers, choices: Collection[_Layers]) -> dict[_Layers, float]:
        """Those of other choices of layers in float that seem faster, with their share of its latency."""
        others = sorted((one for one in choices if one != best), key=sorted)
        found = {}
        for start in range(0, len(others), _AT_ONCE):
            progress(f"latency: {len(best)} of {len(layers)} layers in float, or {len(others)} others")
            some = [best, *others[start : start + _AT_ONCE]]
            held, *rest = measure([quantiser.in_8_bits(one | kept) for one in some])
            for choice, latency in zip(some[1:], rest, strict=True):
                known = min(held.rounds, latency.rounds) >= FEWEST_ROUNDS
                if known and latency.ci_high_ms < held.ci_low_ms:
                    found[choice] = latency.median_ms / held.median_ms
        return found

    def fastest(best: _Layers, choices: Collection[_Layers]) -> _Layers:
        """The fastest of other choices, if each of its compilations beats each of the best one's."""
        some = [best, *sorted(choices, key=sorted)]
        progress(f"latency: {len(best)} of {len(layers)} layers in float, or {len(choices)} others again")
        models = [quantiser.in_8_bits(one | kept) for one in some]
        times = measure([model for model in models for _ in range(_COMPILED)])
        medians = [
            [one.median_ms for one in times[at : at + _COMPILED]] for at in range(0, len(times), _COMPILED)
        ]
        if min(one.rounds for one in times) < FEWEST_ROUNDS:
            return best
        held = min(medians[0])
        found = {one: max(ms) for one, ms in zip(some[1:], medians[1:], strict=True) if max(ms) < held}
        return min(found, key=lambda one: (found[one], sorted(one)), default=best)

    simple = best = fastest(frozenset(layers), [frozenset()])
    size = len(layers)
    while size > 1:
        size = (size + 1) // 2
        parts = [frozenset(layers[start : start + size]) for start in range(0, len(layers), size)]
        for _ in range(_ROUNDS):
            found = faster(best, {one for part in parts for one in (best | part, best - part)})
            if not found:
                break
            better = fastest(best, _together(best, parts, found))
            if better == best:
                break
            best = better
    if best != simple:  # chance adds up over many steps
        best = fastest(simple, [best])
    return tuple(layer for layer in layers if layer in best)


def _together(best: _Layers, parts: Sequence[_Layers], found: dict[_Layers, float]) -> set[_Layers]:
    """The changes that were faster alone, at once: all, the best half, the best quarter, ..., the best.

    Left out are those beside a better one that goes otherwise. Such two move the same border between float
    and 8 bits, each to its side: together they add two.
    """
    changes = []  # share, part, whether it goes to float
    for index, part in enumerate(parts):
        options = [(found[one], index, one >= part) for one in (best | part, best - part) if one in found]
        changes.extend(sorted(options)[:1])
    done: dict[int, bool] = {}
    made = [best]
    for _, index, to_float in sorted(changes):
        if all(done.get(beside, to_float) == to_float for beside in (index - 1, index + 1)):
            done[index] = to_float
            made.append(made[-1] | parts[index] if to_float else made[-1] - parts[index])
    count, chosen = len(made) - 1, set()
    while count > 0:
        chosen.add(made[count])
        count //= 2
    return chosen
