import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import architectures, json_values

from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.search_space import PRESETS, SearchSpace, load_space

NANO = load_space("nano")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_bear_their_names_and_hold_their_ends(name):
    space = load_space(name)
    assert space.name == name
    assert space.contains(space.largest())
    assert space.contains(space.smallest())
    assert space.largest().depths == (space.max_depth,) * len(space.stages)


def test_largest_and_smallest_take_every_choice_at_its_end():
    layer = Layer(5, 4.0)
    assert NANO.largest() == Architecture(64, 1.0, ((layer,) * 3,) * 4)
    assert NANO.smallest(resolution=32) == Architecture(32, 1.0, ((Layer(3, 2.0),),) * 4)


@given(architectures(NANO))
def test_a_space_contains_what_is_made_of_its_choices(architecture):
    assert NANO.contains(architecture)


@given(st.data())
def test_what_an_architecture_passes_begins_as_it_does_and_ends_at_an_exit(data):
    space = load_space(data.draw(st.sampled_from(["nano-ee-d", "nano-me-dp"])))
    architecture = data.draw(architectures(space))
    passed = space.passed(architecture)
    assert [len(one.stages) for one in passed] == [*range(1, len(architecture.stages))]
    for one in passed:
        assert space.contains(one) and one.exits in space.exit_states
        assert one.stages == architecture.stages[: len(one.stages)]
        assert set(one.exits[:-1]) <= set(architecture.exits)
        assert (one.resolution, one.width) == (architecture.resolution, architecture.width)
        assert space.passed(one) == passed[: len(one.stages) - 1]


def test_with_only_a_final_exit_nothing_is_passed():
    assert NANO.passed(NANO.largest()) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 33},
        {"width": 1.2},
        {"stages": NANO.smallest().stages[:3]},
        {"stages": ((), *NANO.smallest().stages[1:])},
        {"stages": ((Layer(3, 2.0),) * 4, *NANO.smallest().stages[1:])},
        {"stages": ((Layer(7, 2.0),), *NANO.smallest().stages[1:])},
        {"stages": ((Layer(3, 6.0),), *NANO.smallest().stages[1:])},
    ],
)
def test_a_space_contains_nothing_else(change):
    smallest = NANO.smallest()
    fields = {"resolution": smallest.resolution, "width": smallest.width, "stages": smallest.stages}
    assert not NANO.contains(Architecture(**{**fields, **change}))


def test_a_users_own_space_is_read_from_its_file(tiny_space):
    assert tiny_space.kernels == (3, 5, 7)
    assert tiny_space.expansions == (1.0, 2.5, 4.0)
    assert tiny_space.contains(tiny_space.largest(resolution=16, width=0.5))


def test_json_round_trip_keeps_a_space(tiny_space):
    again = SearchSpace.model_validate_json(tiny_space.model_dump_json())
    assert again == tiny_space
    assert again.fingerprint == tiny_space.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "tiny"', 'name = "tiny"\nkernel = 3', "kernel: unknown key"),
        ('name = "tiny"', 'name = "a/b"', "name: "),
        ('name = "tiny"', "name = tiny", "is not TOML"),
        ('name = "tiny"', 'name = "tiny"\nbig = ' + "9" * 5000, "is not TOML"),
        ("kernels = [3, 5, 7]", "kernels = [5, 3, 7]", "kernels must be ascending"),
        ("kernels = [3, 5, 7]", "kernels = [3, 3, 5]", "kernels must be ascending"),
        ("kernels = [3, 5, 7]", "kernels = []", "kernels must be ascending"),
        ("kernels = [3, 5, 7]", "kernels = [3, 4]", "kernels must be odd"),
        ("kernels = [3, 5, 7]", "kernels = [3, 99]", "kernels.1: "),
        ("kernels = [3, 5, 7]", "", "kernels: Field required"),
        ("kernel = 3", "kernel = 2", "kernels must be odd"),
        ("depths = [1, 2, 3]", "depths = [1, 3]", "depths must be consecutive"),
        ("depths = [1, 2, 3]", "depths = [0, 1]", "depths.0: "),
        ("expansions = [1, 2.5, 4]", "expansions = [4, 2]", "expansions must be ascending"),
        ("expansions = [1, 2.5, 4]", "expansions = [nan]", "expansions"),
        ("resolutions = [16, 24]", "resolutions = [24, 16]", "resolutions must be ascending"),
        ("widths = [0.5, 1.0]", "widths = [1.0, 0.5]", "widths must be ascending"),
        ("se = true", 'se = "perhaps"', "stages.0.se: "),
        ("se = true", 'se = "yes"', "stages.0.se: Input should be a valid boolean"),
        ("se = true", "se = 1", "stages.0.se: Input should be a valid boolean"),
        ("kernels = [3, 5, 7]", "kernels = [true, 5]", "kernels.0: Input should be a valid integer"),
        (
            "resolutions = [16, 24]",
            'resolutions = ["16", "24"]',
            "resolutions.0: Input should be a valid int",
        ),
        ("widths = [0.5, 1.0]", "widths = [true]", "widths.0: Input should be a valid number"),
        ("widths = [0.5, 1.0]", "widths = [0.5, 1979-05-27]", "widths.1: Input should be a valid number"),
        ('activation = "relu"', 'activation = "gelu"', "activation: "),
    ],
)
def test_a_wrong_file_says_where_and_what(tmp_path, tiny_space_toml, old, new, message):
    assert old in tiny_space_toml
    path = tmp_path / "own.toml"
    path.write_text(tiny_space_toml.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_space(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_neither_preset_nor_file_lists_the_presets(tmp_path):
    with pytest.raises(UserError, match="use one of nano, ofa-mbv3"):
        load_space("nanoo")
    with pytest.raises(UserError, match="no search space at"):
        load_space(str(tmp_path / "absent.toml"))


@given(st.data())
def test_random_values_in_a_file_are_a_space_or_a_user_error(data):
    fields = NANO.model_dump(mode="json")
    key = data.draw(st.sampled_from(sorted(fields)))
    fields[key] = data.draw(json_values())
    try:
        space = parse(SearchSpace, fields, "own.toml")
    except UserError as error:
        assert str(error).startswith(f"own.toml: {key}") or "top level" in str(error)
    else:
        assert space.contains(space.largest())


def test_restrict_keeps_some_choices():
    ofa = load_space("ofa-mbv3")
    fewer = ofa.restrict(resolutions=(160, 128, 160), widths=(1.2,))
    assert fewer.resolutions == (128, 160)
    assert fewer.widths == (1.2,)
    assert fewer.fingerprint == ofa.fingerprint
    assert ofa.restrict() == ofa
    assert ofa.contains(fewer.largest())
    assert not fewer.contains(ofa.largest())


def test_restrict_refuses_what_the_space_has_not():
    with pytest.raises(UserError, match="resolutions: 33 is not in it; choose from 28, 32"):
        NANO.restrict(resolutions=(32, 33))
    with pytest.raises(UserError, match="widths: none given"):
        NANO.restrict(widths=())


def test_fingerprint_tells_blocks_apart_and_nothing_else():
    def changed(**fields):
        return SearchSpace.model_validate({**NANO.model_dump(), **fields}).fingerprint

    assert changed(name="other", resolutions=(32,), widths=(0.5, 1.0)) == NANO.fingerprint
    stages = NANO.model_dump()["stages"]
    for change in (
        {"kernels": (3,)},
        {"expansions": (2, 3)},
        {"depths": (1, 2)},
        {"stages": stages[:3]},
        {"stages": [{**stages[0], "se": True}, *stages[1:]]},
        {"head": {"expansion": 4, "features": 5, "activation": "hswish"}},
    ):
        assert changed(**change) != NANO.fingerprint, change
