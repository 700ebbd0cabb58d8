"""A search's history, read back as it was written or refused."""

import json

import pytest

from nat2deploy.errors import UserError
from nat2deploy.search.history import read_history

ROUNDS = [
    {"round": 0, "surrogate": "rbf", "tau": 0.5, "best": None},
    {"round": 1, "hypervolume": 0.25, "new": 1},
]


def test_what_was_written_comes_back(tmp_path):
    path = tmp_path / "history.json"
    assert read_history(path) == []
    path.write_text(json.dumps(ROUNDS))
    assert read_history(path) == ROUNDS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7", "no list of rounds"),
        ("[7]", "round 0"),
        ('[{"hypervolume": 1.0}]', "round 0: round: Field required"),
        ('[{"round": 1}]', "lacks round 0"),
        ('[{"round": 0, "hypervolume": "much"}]', "round 0: hypervolume"),
        ("[", "not JSON"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path, text, says):
    path = tmp_path / "history.json"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_history(path)
