import hashlib

import pytest

from nat2deploy.space.architecture import Architecture, Layer


def small() -> Architecture:
    return Architecture(32, 1.0, ((Layer(3, 2.0), Layer(5, 2.5)), (Layer(3, 4.0),)))


def test_depths_and_text_are_those_of_the_layers():
    assert small().depths == (2, 1)
    assert str(small()) == "r32 w1 32.52.5 34"


def test_json_is_the_published_form_with_one_value_a_present_layer():
    assert small().to_json() == {"ks": [3, 5, 3], "e": [2, 2.5, 4], "d": [2, 1], "r": 32, "w": 1.0}


def test_id_is_the_hash_of_the_canonical_json():
    text = '{"d":[2,1],"e":[2,2.5,4],"ks":[3,5,3],"r":32,"w":1.0}'
    assert small().id == hashlib.sha256(text.encode()).hexdigest()[:10]


def test_equal_architectures_have_one_id_however_their_numbers_are_written():
    whole = Architecture(32, 1, ((Layer(3, 2), Layer(5, 2.5)), (Layer(3, 4),)))
    assert whole == small()
    assert hash(whole) == hash(small())
    assert whole.id == small().id


@pytest.mark.parametrize(
    "other",
    [
        Architecture(28, 1.0, small().stages),
        Architecture(32, 1.2, small().stages),
        Architecture(32, 1.0, (small().stages[0], (Layer(5, 4.0),))),
        Architecture(32, 1.0, ((Layer(3, 2.0),), (Layer(5, 2.5), Layer(3, 4.0)))),
    ],
)
def test_every_choice_changes_the_id(other):
    assert other != small()
    assert other.id != small().id
