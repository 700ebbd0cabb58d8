import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import architectures, json_values

from nat2deploy.errors import UserError
from nat2deploy.space.architecture import Architecture, Layer
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import load_space

NANO, OFA = load_space("nano"), load_space("ofa-mbv3")
GOOD = OFA.smallest(resolution=224, width=1.0).to_json()


@given(st.sampled_from([NANO, OFA]).flatmap(lambda s: st.tuples(st.just(s), architectures(s))))
def test_what_is_written_is_read_back(pair):
    space, architecture = pair
    assert parse_architecture(space, architecture.to_json()) == architecture
    assert parse_architecture(space, json.dumps(architecture.to_json())).id == architecture.id


@given(architectures(OFA), st.data())
def test_one_value_a_possible_layer_is_the_same_as_one_a_present_layer(architecture, data):
    """Once-For-All's samples hold 20 values; those of absent layers mean nothing."""
    value = architecture.to_json()
    ks, e = [], []
    for stage in architecture.stages:
        for position in range(4):
            drawn = Layer(data.draw(st.sampled_from([3, 5, 7])), data.draw(st.sampled_from([3, 4, 6])))
            kernel, expansion, _ = stage[position] if position < len(stage) else drawn
            ks.append(kernel)
            e.append(expansion)
    assert len(ks) == 20
    assert parse_architecture(OFA, {**value, "ks": ks, "e": e}) == architecture
    assert parse_architecture(OFA, {**value, "ks": ks}) == architecture


def test_once_for_alls_own_sample_is_read():
    """The form of the published evaluation scripts: 20 values, resolution in a list, width beside."""
    value = {"ks": [3] * 20, "e": [6] * 20, "d": [2, 3, 4, 2, 3], "r": [176], "w": 1.2}
    layer = Layer(3, 6.0)
    stages = tuple((layer,) * depth for depth in (2, 3, 4, 2, 3))
    assert parse_architecture(OFA, value) == Architecture(176, 1.2, stages)


def test_a_single_number_stands_for_all():
    value = {"ks": 5, "e": 3, "d": 2, "r": 32}
    assert parse_architecture(NANO, value) == Architecture(32, 1.0, ((Layer(5, 3.0),) * 2,) * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": [2, 2, 2, 2]}, "d has 4 values; the space has 5 stages"),
        ({"d": [2, 2, 2, 2, 5]}, "d 5 is not in space 'ofa-mbv3'; choose from 2, 3, 4"),
        ({"d": [2, 2, 2, 2, 2.5]}, "d 2.5 is not in space"),
        ({"d": [2, 2, 2, 2, 1e9]}, "d holds '1000000000.0', which is no usable number"),
        ({"d": [2, 2, 2, 2, float("nan")]}, "d holds 'nan'"),
        ({"d": [2, 2, 2, 2, 10**400]}, "d holds "),
        ({"d": [2, 2, 2, 2, True]}, "d holds 'True'"),
        ({"d": None}, "d holds 'None'"),
        ({"d": "22222"}, "d holds '22222'"),
        ({"d": {}}, "d holds '{}'"),
        ({"ks": [3] * 11}, "ks has 11 values; give 10 (one a present layer) or 20"),
        ({"ks": []}, "ks has 0 values"),
        ({"ks": 9}, "ks 9 is not in space 'ofa-mbv3'; choose from 3, 5, 7"),
        ({"e": [3] * 9 + [5]}, "e 5 is not in space 'ofa-mbv3'; choose from 3, 4, 6"),
        ({"r": 130}, "r 130 is not in space"),
        ({"r": [224, 224]}, "r must be one number"),
        ({"r": "224"}, "r holds '224'"),
        ({"w": 1.1}, "w 1.1 is not in space 'ofa-mbv3'; choose from 1, 1.2"),
        ({"wid": None}, "unknown key 'wid'"),
    ],
)
def test_a_wrong_value_says_which_and_what_would_do(change, message):
    with pytest.raises(UserError) as caught:
        parse_architecture(OFA, {**GOOD, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_missing_key_is_named(key):
    with pytest.raises(UserError, match=f"'{key}' is missing"):
        parse_architecture(OFA, {k: v for k, v in GOOD.items() if k != key})


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "3", "null", '"ks"', "[" * 100_000, '{"r": ' + "9" * 5000 + "}", "{} {}"]
)
def test_text_that_is_no_object_is_a_user_error(text):
    with pytest.raises(UserError, match="architecture"):
        parse_architecture(OFA, text)


def parsed_or_user_error(value) -> None:
    try:
        architecture = parse_architecture(NANO, value)
    except UserError as error:
        assert str(error).startswith("architecture")
    else:
        assert NANO.contains(architecture)


@given(json_values())
def test_random_json_gives_no_other_error(value):
    parsed_or_user_error(json.dumps(value))
    parsed_or_user_error(value)


@given(st.text())
def test_random_text_gives_no_other_error(text):
    parsed_or_user_error(text)


@given(st.fixed_dictionaries({key: json_values() | st.sampled_from([1, 2, 3, 28, [1] * 4]) for key in GOOD}))
def test_random_values_under_the_right_keys_give_no_other_error(value):
    parsed_or_user_error(value)
    parsed_or_user_error(json.dumps(value))


def test_a_precision_stands_beside_the_choices():
    space = load_space("nano")
    eight = parse_architecture(space, {**space.smallest().to_json(), "precision": "int8"})
    assert eight.precision == "int8"
    assert eight.to_json() == {**space.smallest().to_json(), "precision": "int8"}
    assert eight.id != space.smallest().id
    assert str(eight) == f"{space.smallest()} int8"
    assert "precision" not in space.smallest().to_json()
    for odd in ("int4", 8, [], {}):
        with pytest.raises(UserError, match=r"no precision .*; use fp32, fp16, bf16, int8"):
            parse_architecture(space, {**space.smallest().to_json(), "precision": odd})
