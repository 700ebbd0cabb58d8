"""Words of command lines and configs: budgets, architectures, data specs, options, addresses."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fuzz import mutation
from fuzz.files import json_text
from fuzz.target import Target
from nat2deploy.cli import options
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table
from nat2deploy.data.load import load_data
from nat2deploy.data.places import expand, is_folder
from nat2deploy.deploy.runner import program
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


def targets() -> list[Target]:
    """All of this file."""
    spaces = [load_space(name) for name in ("nano", "nano-me-dp", "ofav2-mbv3-ee-p")]
    return [
        Target("budgets", 60, _several(BUDGETS), _budgets),
        Target("architectures", 25, _architectures(spaces), _architecture),
        Target("data specs", 6, _one(SPECS), _data),
        Target("target words", 15, _target_words, lambda words: str(make_target(*words, elsewhere=True))),
        Target("export options", 8, lambda rng: mutation.tree(rng, EXPORT), _export),
        Target("workers, tables and numbers", 30, _option, _options),
        Target(
            "ssh addresses", 20, _one(("ssh://pi@raspberrypi:22", "ssh://[::1]:2222", "ssh://host")), _ssh
        ),
        Target("the runner's command line", 3, _arguments, _runner),
        Target("names of spaces and profiles", 8, _one(("nano-ee-d", "ofa-mbv3", "x86-1-thread")), _names),
    ]


def _one(seeds: Sequence[str]) -> Callable[[random.Random], str]:
    return lambda rng: mutation.text(rng, rng.choice(seeds))


def _several(seeds: Sequence[str]) -> Callable[[random.Random], list[str]]:
    def draw(rng: random.Random) -> list[str]:
        chosen = rng.sample(seeds, rng.choice((1, 1, 2, 3)))
        return [mutation.text(rng, one) if rng.random() < 0.7 else one for one in chosen]

    return draw


def _budgets(texts: list[str]) -> None:
    budgets = parse_budgets(texts)
    for budget in budgets:
        budget.violation(1.0)
        cost_metric(budget.metric if budget.metric != "top1" else "latency")
    budgets_on(budgets, ("pi5", "a-b_c"))


def _architectures(spaces: list[SearchSpace]) -> Callable[[random.Random], tuple[SearchSpace, str]]:
    seeds = [
        (space, json.loads(json.dumps(one.to_json())))
        for space in spaces
        for one in (space.smallest(), space.largest())
    ]

    def draw(rng: random.Random) -> tuple[SearchSpace, str]:
        space, value = rng.choice(seeds)
        if rng.random() < 0.2:
            value = {**value, "precision": "int8", "b": 1}
        return space, json_text(rng, value)

    return draw


def _architecture(given: tuple[SearchSpace, str]) -> None:
    space, content = given
    found = parse_architecture(space, content)
    encoding = IntegerEncoding(space)
    if found.precision is None and len(found.exits) == 1:
        encoding.decode(encoding.encode(found))
    CostModel(space, 10, None).costs(found)


def _data(spec: str) -> None:
    name, _, place = spec.partition(":")
    if spec not in ("digits", "fashion-mnist") and not (name == "imagefolder" and is_folder(expand(place))):
        load_data(spec)  # what may be there takes its time, such as the images below /


def _target_words(rng: random.Random) -> tuple[str, str, str, int, int]:
    words = ["cpu", "onnxruntime", "fp32"]
    place = rng.randrange(3)
    if rng.random() < 0.8:
        words[place] = mutation.text(
            rng, rng.choice(("cpu", "cuda:1", "openvino", "tensorrt", "int8", "bf16"))
        )
    threads, batch = (int(rng.choice((1, 4, rng.choice(mutation.ODD_NUMBERS[:16])))) for _ in range(2))
    return words[0], words[1], words[2], threads, batch


def _export(value: object) -> None:
    config = parse(ExportConfig, value, "options")
    str(config.batches)
    bundle_target(config, None)


def _option(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(("resolutions", "sm", "percentage", "tables", "workers"))
    seeds = {
        "resolutions": "28,32", "sm": "86,89", "percentage": "0.5%", "tables": "pi5=a.json", "workers": "ray://h:1"
    }  # fmt: skip
    return kind, mutation.text(rng, seeds[kind])


def _options(given: tuple[str, str]) -> None:
    kind, word = given
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


def _ssh(word: str) -> None:
    address = SshAddress.parse(word)
    SshSettings(address, "python3")
    assert SshAddress.parse(str(address)) == address


def _arguments(rng: random.Random) -> list[str]:
    words = list(rng.choice(RUNNER))
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(words))
        words[at] = rng.choice((mutation.text(rng, words[at]), rng.choice(mutation.ODD_TEXTS)))
    return words


def _runner(words: list[str]) -> None:
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            program._parse(words)
    except SystemExit as end:
        if end.code not in (0, 2):
            raise AssertionError(f"exit code {end.code}") from end


def _names(word: str) -> None:
    refusals = []
    for load in (load_space, lambda name: load_profile(Path(name)), lambda name: load_table(Path(name))):
        try:
            load(word)
        except UserError as error:
            refusals.append(error)
    if len(refusals) == 3:
        raise refusals[0]
