from dataclasses import fields, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat2deploy.errors import UserError
from nat2deploy.space.signature import Activation, BlockSignature, Kind, make_divisible

count = st.integers(1, 999_999_999)
signatures = st.builds(
    BlockSignature,
    st.sampled_from(get_args(Kind)),
    count,
    count,
    count,
    count,
    count,
    st.booleans(),
    st.booleans(),
    st.sampled_from(get_args(Activation)),
    count,
    count,
)
KEY = "mbconv-i24-m72-o40-k5-s2-se-relu-h28-w28"


def parses_only_to_itself(text: str) -> None:
    try:
        signature = BlockSignature.parse(text)
    except UserError as error:
        assert "make the table again" in str(error)
    else:
        assert signature.key == text


def test_a_key_reads_as_it_is_written():
    signature = BlockSignature("mbconv", 24, 72, 40, 5, 2, True, False, "relu", 28, 28)
    assert signature.key == KEY
    assert BlockSignature.parse(KEY) == signature


@given(signatures)
def test_keys_round_trip(signature):
    assert BlockSignature.parse(signature.key) == signature


@pytest.mark.parametrize("field", [field.name for field in fields(BlockSignature)])
def test_every_field_is_in_the_key(field):
    signature = BlockSignature.parse(KEY)
    value = getattr(signature, field)
    other = (not value) if isinstance(value, bool) else {"mbconv": "head", "relu": "none"}.get(value, 99)
    assert replace(signature, **{field: other}).key != KEY


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_a_user_error(text):
    parses_only_to_itself(text)


@given(st.integers(0, len(KEY) - 1), st.integers(0, 3), st.text("0159-abcikmorstuwé٣\n", max_size=3))
def test_damaged_keys_are_a_user_error(start, removed, inserted):
    parses_only_to_itself(KEY[:start] + inserted + KEY[start + removed :])


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "stem",
        KEY + "\n",
        KEY.replace("mbconv", "pool"),
        KEY.replace("relu", "gelu"),
        KEY.replace("s2", "s0"),
        KEY.replace("i24", "i024"),
        KEY.replace("i24", "i٢٤"),
        KEY.replace("i24", "i" + "9" * 5000),
        KEY.replace("-se", "-se-se"),
    ],
)
def test_junk_is_a_user_error_of_one_short_line(junk):
    with pytest.raises(UserError, match="is not a block signature") as caught:
        BlockSignature.parse(junk)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("value", "rounded"),
    # Once-For-All's stages at w1.2, then the edges of the rule
    zip(
        [19.2, 28.8, 48.0, 96.0, 134.4, 192.0, 1, 8, 11.9, 12, 18, 20, 960],
        [24, 32, 48, 96, 136, 192, 8, 8, 16, 16, 24, 24, 960],
        strict=True,
    ),
)
def test_make_divisible_as_mobilenet_does(value, rounded):
    assert make_divisible(value) == rounded


@given(st.floats(1, 1e6))
def test_make_divisible_is_a_near_multiple_of_8(value):
    rounded = make_divisible(value)
    assert rounded % 8 == 0
    assert 0.9 * value <= rounded <= max(8, value * 1.1 + 8)


def test_shapes_say_what_a_block_takes():
    block = BlockSignature.parse(KEY)
    assert block.input_shape == (24, 28, 28)
    assert block.se_channels == 24  # 72 / 4 = 18, and 16 would be more than a tenth below
    assert block.expands
    plain = BlockSignature("mbconv", 16, 16, 16, 3, 1, False, True, "relu", 8, 8)
    assert (plain.se_channels, plain.expands) == (0, False)
    assert BlockSignature("classifier", 80, 80, 10, 1, 1, False, False, "none", 1, 1).input_shape == (80,)
