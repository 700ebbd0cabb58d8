"""Privacy, units, drawings, what stages cost, and the commands to repeat a run."""

import inspect
import shlex
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from made_runs import SPACE, TABLE, made_tuning, write, write_search

from nat2deploy.cli.finetuning import finetune
from nat2deploy.cost.model import CostModel
from nat2deploy.cost.table import load_table
from nat2deploy.report.anatomy import Anatomy
from nat2deploy.report.drawing import draw
from nat2deploy.report.metrics import axes_of
from nat2deploy.report.privacy import masked, masked_settings
from nat2deploy.report.reading import read_run
from nat2deploy.report.repeat import FINETUNE_OPTIONS, commands, settings_file
from nat2deploy.run.finetune_config import FinetuneConfig
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import load_space


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/home/x/a.json", "…/a.json"),
        ("cannot read /home/x/a.json; check", "cannot read …/a.json; check"),
        ("imagefolder:/data/me/img", "imagefolder:…/img"),
        ("ssh://pi@raspberrypi", "ssh://…@raspberrypi"),
        ("https://user:word@host/x", "https://…@host/x"),
        ("C:\\Users\\me\\t.json", "…/t.json"),
        ("file:///home/me/x", "…/x"),
        ("~/x/y", "…/y"),
        ("latency<=0.25ms, images/s, a/b", "latency<=0.25ms, images/s, a/b"),
        ("predicted / measured", "predicted / measured"),
        ("runs/quickstart/table.json", "runs/quickstart/table.json"),
    ],
)
def test_texts_lose_folders_and_users(text, wanted):
    assert masked(text) == wanted


@given(st.lists(st.from_regex(r"[A-Za-z0-9 ._-]{1,12}", fullmatch=True), min_size=2, max_size=5))
def test_no_folder_of_an_absolute_path_in_settings_stays(parts):
    path = "/" + "/".join(f"folder{part}" for part in parts[:-1]) + "/" + parts[-1]
    for value in (path, f"imagefolder:{path}", f"IdentityFile={path}"):
        assert "folder" not in masked_settings({"a": [value]})["a"][0].removeprefix("imagefolder")


@given(st.text())
def test_any_text_can_be_masked_and_stays_so(text):
    assert masked(masked(text)) == masked(text)


def test_units_suit_the_values():
    largest = {"macs": 5e6, "params": 2e5, "size_mb": 0.4, "latency_ms@pi5": 3.0, "new_thing": 1.0}
    axes = axes_of(largest, largest, {"params": 4e5})
    assert [axis.label for axis in axes] == [
        *("predicted latency on pi5 (ms)", "MACs (M)", "parameters (k)", "weights (kB)", "new thing"),
    ]
    assert [axis.limit for axis in axes] == [None, None, 4e5, None, None]


@pytest.fixture(scope="module")
def anatomy():
    return Anatomy(load_space(SPACE), 10, {"": [load_table(Path(TABLE))]})


def test_the_parts_of_a_network_add_up_to_its_costs(anatomy, made):
    for network in made:
        parts = anatomy.parts(network["architecture"])
        assert [part.name for part in parts] == [
            "stem", *(f"stage {i + 1}" for i in range(len(network["architecture"]["d"]))), "head",
        ]  # fmt: skip
        for metric in ("latency_ms", "macs", "params"):
            assert sum(part.costs[metric] for part in parts) == pytest.approx(network["costs"][metric])


def test_the_latency_of_the_parts_is_that_of_the_networks_precision(made):
    tables = [load_table(Path(name)) for name in (TABLE, f"{TABLE}-int8")]
    anatomy = Anatomy(load_space(SPACE), 10, {"": tables})
    for table in tables:
        model = CostModel(load_space(SPACE), 10, table)
        for network in made:
            parts = anatomy.parts({**network["architecture"], "precision": table.target.precision})
            plain = parse_architecture(model.space, network["architecture"])
            assert sum(part.costs["latency_ms"] for part in parts) == pytest.approx(
                model.costs(plain).latency_ms
            )
    (stem, *_) = anatomy.parts({**made[0]["architecture"], "precision": "fp16"})
    assert "latency_ms" not in stem.costs


def test_an_architecture_of_another_space_has_no_parts(anatomy):
    assert anatomy.parts({"ks": 9, "e": 3, "d": [1], "r": 28}) == []
    assert anatomy.parts({}) == []


def test_a_drawing_has_a_box_a_layer(made):
    space = load_space(SPACE)
    for network in made:
        for known in (space, None):
            drawing = draw(network["architecture"], known)
            assert len(drawing.boxes) == sum(network["architecture"]["d"]) + 2
            assert all(box.x >= 0 and box.x + box.width <= drawing.width for box in drawing.boxes)
            assert all(box.y >= 0 and box.y + box.height <= drawing.height for box in drawing.boxes)


def test_exits_and_branches_are_drawn():
    drawing = draw({"ks": [3, 0], "e": [4, 0], "d": [1, 1], "r": 32, "b": [7, 6], "exits": [1, 2]}, None)
    assert [box.text for box in drawing.boxes] == [
        ("stem",), ("k3", "e4", "+pt"), ("exit",), ("-", "+pt"), ("head",),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", [{}, {"d": 3}, {"ks": [], "e": [], "d": [2], "r": 3}, {"d": [10**9], "ks": 3, "e": 3, "r": 1}]
)
def test_what_is_no_architecture_is_not_drawn(value):
    assert draw(value, None) is None


def test_the_commands_repeat_a_search(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    write(run / "networks" / made[0]["id"] / "finetune.json", made_tuning(made[0]))
    files = read_run(run)
    search, tune = [shlex.split(line) for line in commands(files)]
    assert search[:2] == ["nat2deploy", "search"]
    for words in (
        ["--budget", "latency<=0.25ms"],
        ["--table", TABLE],
        ["--seed", "7"],
        ["--resolutions", "28,32"],
    ):
        assert " ".join(words) in " ".join(search)
    assert tune[:3] == ["nat2deploy", "finetune", "again"] and tune[tune.index("--epochs") + 1] == "5.0"
    name, text = settings_file(files)
    assert name == "settings.toml" and "rounds = 3" in text and "seed" not in text


def test_the_commands_name_each_of_several_tables_and_super_networks(made, tmp_path):
    run = write_search(tmp_path / "run", made)
    config = tomllib.loads((run / "config.toml").read_text())
    two = [TABLE, f"{TABLE}-int8"]
    for fields in ({"table": two}, {"tables": {"pi5": two}}):
        changed = {**config, "supernet": ["w1.0.safetensors", "w1.2.safetensors"], **fields}
        if "tables" in fields:
            del changed["table"]
        write(run / "config.toml", tomli_w.dumps(changed))
        files = read_run(run)
        assert [table.target.precision for _, table in files.every_table] == ["fp32", "int8"]
        words = shlex.split(commands(files)[0])
        given = [words[i + 1] for i, word in enumerate(words) if word == "--table"]
        assert given == ([f"pi5={one}" for one in two] if "tables" in fields else two)
        assert [words[i + 1] for i, word in enumerate(words) if word == "--supernet"] == changed["supernet"]


def test_the_options_of_a_fine_tuning_are_the_commands(made, tmp_path):
    assert set(FINETUNE_OPTIONS) <= set(inspect.signature(finetune).parameters)
    elsewhere = {"devices"}  # which another machine may not have
    assert set(FINETUNE_OPTIONS) == set(FinetuneConfig.model_fields) - elsewhere
    run = write_search(tmp_path / "run", made)
    config = FinetuneConfig(method="aep", prune=("latency", "params"), distil=False).model_dump(mode="json")
    write(run / "networks" / made[0]["id"] / "finetune.json", {**made_tuning(made[0]), "config": config})
    tune = commands(read_run(run))[1]
    assert "--prune latency_ms --prune params" in tune and "--no-distil" in tune
    assert "--weight-decay 0.0005" in tune and "--devices" not in tune
