"""Layers that 8 bits make slower stay in float: against every other choice, and in files that are exported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, combinations
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from deploy_helpers import make_images, make_test
from hypothesis import given
from hypothesis import strategies as st
from staged_helpers import digits, export_staged

from nat2deploy.deploy import quantised
from nat2deploy.deploy.making import EngineOptions
from nat2deploy.deploy.manifest import Manifest
from nat2deploy.deploy.slower_layers import slower_in_8_bits
from nat2deploy.engines.base import Engine
from nat2deploy.errors import UserError
from nat2deploy.measure.statistics import Summary
from nat2deploy.target import Target

Export = Callable[..., Manifest]
Choice = frozenset[str]
INT8 = Target(precision="int8")
SLOWER_IN = {"Conv": True, "Gemm": False}  # 8 bits


class Chain:
    """Layers one after another, whose model is the choice itself: which are in float."""

    def __init__(self, in_float: Sequence[float], in_8_bits: Sequence[float], border: float) -> None:
        self.layers = [str(index) for index in range(len(in_float))]
        self.costs = (in_8_bits, in_float)
        self.border = border
        self.measured: list[int] = []

    def in_8_bits(self, float_layers: Collection[str]) -> Choice:
        return frozenset(float_layers)

    def latency(self, choice: Choice) -> float:
        """A network takes and gives floats; each border between float and 8 bits costs the same."""
        sides = [layer in choice for layer in self.layers]
        borders = sum(a != b for a, b in zip([True, *sides], [*sides, True], strict=True))
        layers = sum(self.costs[side][index] for index, side in enumerate(sides))
        return layers + borders * self.border

    def measure(self, models: Sequence[Choice]) -> list[Summary]:
        self.measured.append(len(models))
        found = [self.latency(model) for model in models]
        return [Summary(x, x, x, 0.999 * x, 1.001 * x, samples=9, rounds=9) for x in found]

    def every(self) -> list[Choice]:
        sizes = range(len(self.layers) + 1)
        return [frozenset(c) for c in chain.from_iterable(combinations(self.layers, n) for n in sizes)]

    def found(self, in_float: Sequence[str] = ()) -> Choice:
        return frozenset(slower_in_8_bits(self, self.measure, in_float=in_float))


costs = st.integers(min_value=1, max_value=50).map(float)


@given(st.lists(st.tuples(costs, costs), min_size=1, max_size=7))
def test_without_borders_each_layer_is_where_it_is_faster(pairs):
    network = Chain(*zip(*pairs, strict=True), border=0.0)
    best = min(map(network.latency, network.every()))
    assert network.latency(network.found()) <= best * 1.002 ** len(pairs)


@given(st.lists(st.tuples(costs, costs), min_size=2, max_size=9), st.floats(0.0, 20.0))
def test_neither_all_nor_none_is_faster(pairs, border):
    network = Chain(*zip(*pairs, strict=True), border=border)
    others = [Choice(), Choice(network.layers)]
    assert network.latency(network.found()) <= min(map(network.latency, others))


def test_a_run_of_layers_changes_together_where_one_alone_would_not_pay():
    network = Chain([5.0] * 4 + [1.0] * 4, [4.0] * 4 + [2.0] * 4, border=1.5)
    assert network.found() == {"4", "5", "6", "7"}
    assert min(map(network.latency, network.every())) == network.latency(network.found())


def test_layers_come_in_the_networks_order_and_few_models_are_held_at_once():
    network = Chain([1.0, 9.0] * 40, [9.0, 1.0] * 40, border=0.0)
    told: list[str] = []
    found = slower_in_8_bits(network, network.measure, progress=told.append)
    assert found == tuple(network.layers[::2])
    assert max(network.measured) <= 25
    assert told[0] == "latency: 80 of 80 layers in float, or 1 others again"
    assert len(told) == len(network.measured)


def test_changes_that_spoil_each_other_are_not_made_at_once():
    """Each of two neighbours gains alone by moving a border; the other eighty gain by themselves."""
    network = Chain([1.0, 9.0] * 4, [2.0, 1.0] * 4, border=3.0)
    found = network.found()
    assert network.latency(found) * 0.999 <= min(map(network.latency, network.every())) * 1.001


def test_what_is_within_the_noise_stays_on_the_side_that_is_begun_with():
    assert Chain([1.0] * 5, [1.0005] * 5, border=0.0).found() == frozenset("01234")
    assert Chain([5.0, 1.0, 1.0], [1.0, 1.0, 1.0], border=0.0).found() == frozenset()


def test_a_latency_of_too_few_rounds_is_not_believed():
    network = Chain([5.0] * 4, [1.0] * 4, border=0.0)

    def hasty(models: Sequence[Choice]) -> list[Summary]:
        return [replace(one, rounds=5) for one in network.measure(models)]

    assert slower_in_8_bits(network, hasty) == ("0", "1", "2", "3")


def test_layers_that_are_in_float_anyway_count_as_neighbours_and_are_not_named():
    network = Chain([2.0] * 6, [1.5] * 6, border=0.8)
    assert network.found() == frozenset()
    assert network.found(in_float=("1", "4")) == {"0", "2", "3", "5"}
    assert Chain([5.0, 5.0], [1.0, 1.0], border=0.0).found(in_float=("0", "1")) == frozenset()


def float_convolutions(model: Path) -> set[str]:
    """The layers of an exported file whose weights are floats."""
    nodes = onnx.load(model).graph.node
    rounded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name for node in nodes if node.op_type in ("Conv", "Gemm") and node.input[1] not in rounded}


@pytest.fixture
def convolutions_slow_in_8_bits(monkeypatch):
    """Engines are a millisecond slower for each convolution in 8 bits and each matrix in float."""

    def measured(engines: dict[str, Engine], **_) -> SimpleNamespace:
        summaries = {}
        for engine_name, engine in engines.items():
            files = engine.models if hasattr(engine, "models") else [engine.model]
            graphs = [onnx.load_model_from_string(file).graph for file in files]
            weights = [(n.op_type, n.input[1]) for g in graphs for n in g.node if n.op_type in SLOWER_IN]
            slower = sum(
                SLOWER_IN[kind] == name.endswith("DequantizeLinear_Output") for kind, name in weights
            )
            summaries[engine_name] = Summary(*[1.0 + slower] * 5, samples=9, rounds=9)
        return SimpleNamespace(summaries=summaries)

    monkeypatch.setattr(quantised, "measure_engines", measured)


@pytest.mark.usefixtures("convolutions_slow_in_8_bits")
def test_the_file_has_in_float_what_is_slower_and_the_manifest_says_so(
    export: Export, tmp_path: Path
) -> None:
    manifest = export(
        target=INT8,
        calibration_images=make_images(40),
        validation=make_test(),
        options=EngineOptions(int8_layers="faster", max_accuracy_drop=0.1),
    )
    made = manifest.quantisation
    assert made is not None and made.layers == 2
    assert made.slower_layers == ("/0/Conv",)
    assert float_convolutions(tmp_path / "out" / "model.onnx") == {"/0/Conv"}
    assert made.float_layers == () and made.top1 is not None


@pytest.mark.usefixtures("convolutions_slow_in_8_bits")
def test_accuracy_is_searched_among_the_layers_that_are_left(export: Export, tmp_path: Path) -> None:
    manifest = export(
        target=INT8,
        calibration_images=make_images(2) // 64,  # ranges too small for any other image
        validation=make_test(),
        test=None,
        options=EngineOptions(int8_layers="faster", max_accuracy_drop=0.0),
    )
    made = manifest.quantisation
    assert made is not None and len(made.slower_layers) == len(made.float_layers) == 1
    assert set(made.slower_layers).isdisjoint(made.float_layers)
    assert float_convolutions(tmp_path / "out" / "model.onnx") == {*made.slower_layers, *made.float_layers}


def test_measured_for_real_the_file_is_what_the_manifest_says(export: Export, tmp_path: Path) -> None:
    manifest = export(
        target=INT8,
        calibration_images=make_images(40),
        options=EngineOptions(int8_layers="faster", max_accuracy_drop=0.1),
    )
    made = manifest.quantisation
    assert made is not None and made.top1 is None
    assert set(made.slower_layers) == float_convolutions(tmp_path / "out" / "model.onnx")


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
@pytest.mark.usefixtures("convolutions_slow_in_8_bits")
def test_openvino_too(export: Export) -> None:
    manifest = export(
        target=Target(backend="openvino", precision="int8"),
        calibration_images=make_images(40),
        options=EngineOptions(int8_layers="faster", max_accuracy_drop=0.1),
    )
    assert manifest.quantisation is not None and manifest.quantisation.slower_layers == ("/0/Conv",)


@pytest.mark.usefixtures("convolutions_slow_in_8_bits")
def test_stages_are_measured_as_a_chain_and_each_keeps_its_own_layers_in_float(tmp_path: Path) -> None:
    manifest = export_staged(
        tmp_path / "out",
        {"accuracy_drop": 0.02},
        target=INT8,
        calibration_images=digits().train.images[:64],
        options=EngineOptions(int8_layers="faster", max_accuracy_drop=0.1),
    )
    made, stages = manifest.quantisation, manifest.stages
    assert made is not None and stages is not None
    assert 0 < len(made.slower_layers) < made.layers
    assert {name.split(":")[0] for name in made.slower_layers} == {
        f"stage {number}" for number in range(1, len(stages.exits) + 1)
    }
    for number, stage in enumerate(stages.exits, start=1):
        own = {name.partition(": ")[2] for name in made.slower_layers if name.startswith(f"stage {number}:")}
        assert float_convolutions(tmp_path / "out" / stage.file) == own


@pytest.mark.parametrize(
    "changes",
    [
        {"target": Target()},
        {"time_limit_s": None},
        {"target": Target(device="cuda", backend="tensorrt-rtx", precision="int8")},
    ],
)
def test_where_it_cannot_be_measured_it_is_refused(export: Export, tmp_path: Path, changes) -> None:
    given = {"target": INT8, "options": EngineOptions(int8_layers="faster"), **changes}
    with pytest.raises(UserError, match=r"^--int8-layers faster: .* is not measured here"):
        export(calibration_images=make_images(8), **given)
    assert not (tmp_path / "out").exists()


def test_what_is_no_faster_in_the_end_is_as_it_was_begun_with() -> None:
    network = Chain([5.0, 5.0, 1.0, 1.0], [1.0, 1.0, 0.5, 20.0], border=0.0)
    begun, found = frozenset("0123"), frozenset("3")
    assert network.found() == found
    looks = []

    def lucky(models: Sequence[Choice]) -> list[Summary]:
        """Each step is faster than the one before; the result is no faster than what was begun with."""
        looks.append(set(models))
        same = looks[-1] == {begun, found}
        return [replace(one, median_ms=1.0) if same else one for one in network.measure(models)]

    assert slower_in_8_bits(network, lucky) == ("0", "1", "2", "3")
    assert looks.count({begun, found}) == 1
