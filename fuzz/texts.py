"""Words of command lines and configs: budgets, architectures, data specs, options, addresses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fuzz.inputs import (
    by_head,
    decoded,
    encoded,
    joined,
    loaded,
    of_json,
    of_text,
    of_words,
    packed,
    split,
    words,
)
from fuzz.target import Target
from nat2deploy.cli import options
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table
from nat2deploy.data.load import load_data
from nat2deploy.data.places import expand, is_folder
from nat2deploy.deploy.runner import program
from nat2deploy.deploy.runner.refusal import BadInput
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.remote.ssh import SshAddress, SshSettings
from nat2deploy.run.config import ExportConfig, SearchConfig
from nat2deploy.run.export import bundle_target
from nat2deploy.search.budget import budgets_on, cost_metric, parse_budgets
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.target import load_profile, make_target

BUDGETS = (
    "latency<=5ms", "latency.p95<=6ms", "latency.p99@pi5<=8e3us", "energy<=5mJ", "macs<=200M", "params<=3k",
    "size<=4MB", "memory<=512kB", "top1>=90%", "top1>=.95", "latency@a-b_c<=1s",
)  # fmt: skip
SPECS = (
    "digits",
    "fashion-mnist",
    "cifar10:data",
    "cifar100:~/x",
    "imagefolder:no/such",
    "fashion-mnist:/",
)
EXPORT = {
    "network": "best", "engine": "onnxruntime", "device": "cpu", "precision": "int8", "target": "pi5",
    "batch": "1:4:8", "sm": [86, 89], "save_optimised": True, "calibration_method": "min-max",
    "calibration_images": 256,
}  # fmt: skip
RUNNER = (
    ["a.png", "--top", "5"], ["--stream", "-", "--raw", "640x480:gray", "--newest", "--limit", "3"],
    ["--serve", "0.0.0.0:8080"], ["--bench", "--threads", "2", "--json"], ["--check", "--provider", "cpu"],
    ["--input-for", "x.bin", "a.png"],
)  # fmt: skip
DEVICES = (
    ("cpu", "onnxruntime", "fp32", "1", "1"), ("cuda:1", "tensorrt", "int8", "1", "8"),
    ("cpu", "openvino", "bf16", "4", "1"), ("cuda", "tensorrt-rtx", "fp16", "1", "1"),
)  # fmt: skip
OPTIONS = {
    "resolutions": "28,32", "sm": "86,89", "percentage": "0.5%", "tables": "pi5=a.json", "workers": "ray://h:1"
}  # fmt: skip
ADDRESSES = ("ssh://pi@raspberrypi:22", "ssh://[::1]:2222", "ssh://host")


def targets() -> list[Target]:
    """All of this file."""
    spaces = {name: load_space(name) for name in ("nano", "nano-me-dp", "ofav2-mbv3-ee-p")}
    budgets = [joined(*BUDGETS[at : at + count]) for count in (1, 1, 2, 3) for at in range(len(BUDGETS))]
    specs = [encoded(spec) for spec in SPECS]
    addresses = [encoded(address) for address in ADDRESSES]
    names = [encoded(name) for name in ("nano-ee-d", "ofa-mbv3", "x86-1-thread")]
    runner = [joined(*line) for line in RUNNER]
    option = by_head(dict.fromkeys(OPTIONS, of_text))
    return [
        Target("budgets", 60, budgets, of_words, _budgets),
        Target(
            "architectures",
            25,
            _seeds(spaces),
            by_head(dict.fromkeys(spaces, of_json)),
            _architecture(spaces),
        ),
        Target("data specs", 6, specs, of_text, _data),
        Target("target words", 15, [joined(*words) for words in DEVICES], of_words, _device),
        Target("export options", 8, packed([EXPORT]), of_json, _export),
        Target("workers, tables and numbers", 30, [joined(*one) for one in OPTIONS.items()], option, _option),
        Target("ssh addresses", 20, addresses, of_text, _ssh),
        Target("the runner's command line", 3, runner, of_words, _runner),
        Target("names of spaces and profiles", 8, names, of_text, _names),
    ]


def _budgets(data: bytes) -> None:
    budgets = parse_budgets(words(data))
    for budget in budgets:
        budget.violation(1.0)
        cost_metric(budget.metric if budget.metric != "top1" else "latency")
    budgets_on(budgets, ("pi5", "a-b_c"))


def _seeds(spaces: dict[str, SearchSpace]) -> list[bytes]:
    """The smallest and the largest architecture of each space, also with a precision."""
    found = []
    for name, space in spaces.items():
        for one in (space.smallest(), space.largest()):
            value = one.to_json()
            found += [
                joined(name, json.dumps({**value, **more})) for more in ({}, {"precision": "int8", "b": 1})
            ]
    return found


def _architecture(spaces: dict[str, SearchSpace]) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        name, content = (decoded(part) for part in split(data, 2))
        space = spaces.get(name) or spaces["nano"]
        found = parse_architecture(space, content)
        encoding = IntegerEncoding(space)
        if found.precision is None and len(found.exits) == 1:
            encoding.decode(encoding.encode(found))
        CostModel(space, 10, None).costs(found)

    return feed


def _data(data: bytes) -> None:
    spec = decoded(data)
    name, _, place = spec.partition(":")
    if spec not in ("digits", "fashion-mnist") and not (name == "imagefolder" and is_folder(expand(place))):
        load_data(spec)  # what may be there takes its time, such as the images below /


def _device(data: bytes) -> None:
    device, backend, precision, threads, batch = (decoded(part) for part in split(data, 5))
    try:
        numbers = int(threads), int(batch)
    except ValueError as error:  # as typer refuses it
        raise BadInput("no whole number") from error
    str(make_target(device, backend, precision, *numbers, elsewhere=not device.startswith("cuda")))


def _export(data: bytes) -> None:
    config = parse(ExportConfig, loaded(data), "options")
    str(config.batches)
    bundle_target(config, None)


def _option(data: bytes) -> None:
    kind, word = (decoded(part) for part in split(data, 2))
    if kind == "resolutions":
        options.resolutions(word)
    elif kind == "sm":
        options.whole_numbers("--sm", word)
    elif kind == "percentage":
        options.percentage("--max-accuracy-drop", word)
    elif kind == "tables":
        options.tables([word])
    else:
        parse(SearchConfig, {"supernet": "a", "data": "digits", "workers": word}, "options")


def _ssh(data: bytes) -> None:
    address = SshAddress.parse(decoded(data))
    SshSettings(address, "python3")
    assert SshAddress.parse(str(address)) == address


def _runner(data: bytes) -> None:
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            program._parse(words(data))
    except SystemExit as end:
        if end.code not in (0, 2):
            raise AssertionError(f"exit code {end.code}") from end


def _names(data: bytes) -> None:
    refusals = []
    for load in (load_space, lambda name: load_profile(Path(name)), lambda name: load_table(Path(name))):
        try:
            load(decoded(data))
        except UserError as error:
            refusals.append(error)
    if len(refusals) == 3:
        raise refusals[0]
