"""Model cards: what they say is what was measured."""

import pytest

from nat2deploy.errors import UserError
from nat2deploy.run.evaluate import EvaluatedNetwork
from nat2deploy.run.model_card import model_card, write_model_card
from nat2deploy.supernet.checkpoint import supernet_info


def networks():
    rows = [("smallest", 0.5, 10**6, 1000), ("largest", 0.9, 8 * 10**6, 9000)]
    rows += [("random", 0.6, 2 * 10**6, 2000), ("random", 0.8, 4 * 10**6, 6000)]
    return [
        EvaluatedNetwork(role, f"id{index}", f"architecture {index}", top1, 360, macs, params)
        for index, (role, top1, macs, params) in enumerate(rows)
    ]


def test_it_tells_data_settings_phases_and_accuracies(outcome):
    info = supernet_info(outcome.out / "supernet.safetensors")
    card = model_card("w", info, networks(), "digits", "validation")
    assert card.startswith("# w\n")
    for words in ("`tiny`", "16, 20 pixels", "Data: digits", "10 classes: 0, 1, 2", ", ".join(info.phases)):
        assert words in card
    assert info.recipe in card and '"epochs":12.0' in card
    for row in (
        "| smallest | 50.00% | 1.00M | 1k |",
        "| largest | 90.00% | 8.00M | 9k |",
        "| 2 random, mean | 70.00% | 3.00M | 4k |",
        "| worst and best of them | 60.00%, 80.00% | | |",
        "| `id3` | 80.00% | 4.00M | 6k | architecture 3 |",
    ):
        assert row in card.splitlines()
    assert "validation split of digits, 360 images" in card


def test_it_is_written_beside_any_super_network(outcome, tmp_path):
    path = outcome.out / "supernet.safetensors"
    write_model_card(tmp_path / "card.md", str(path), networks(), "digits", "test")
    text = (tmp_path / "card.md").read_text()
    assert text == model_card("supernet", supernet_info(path), networks(), "digits", "test")
    with pytest.raises(UserError, match="no super-network"):
        write_model_card(tmp_path / "other.md", str(tmp_path / "missing"), networks(), "digits", "test")
    assert not (tmp_path / "other.md").exists()
