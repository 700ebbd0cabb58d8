"""The picture of a table."""

import xml.etree.ElementTree as ElementTree

import pytest
from cost_tables import make_measured_table, make_table

from nat2deploy.cost.table_picture import draw_table
from nat2deploy.errors import UserError
from nat2deploy.space.search_space import load_space


def test_a_drawing_with_every_network_and_stage(nano, tmp_path):
    path = tmp_path / "t.svg"
    draw_table(make_measured_table(nano), nano, path)
    text = path.read_text()
    ElementTree.fromstring(text)
    # matplotlib writes each label as a comment beside its glyphs
    for words in ("stage 1", "stage 4", "heads", "measured (ms)", "held-out networks", "mean error"):
        assert f"<!-- {words}" in text or words in text
    draw_table(make_measured_table(nano), nano, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn(nano, tmp_path):
    with pytest.raises(UserError, match=r"a \.png or \.svg file"):
        draw_table(make_measured_table(nano), nano, tmp_path / "t.txt")
    with pytest.raises(UserError, match="no measured networks"):
        draw_table(make_table(nano), nano, tmp_path / "t.png")
    with pytest.raises(UserError, match="of space 'nano'"):
        draw_table(make_measured_table(nano), load_space("nano-ee-d"), tmp_path / "t.png")
    assert not list(tmp_path.iterdir())
