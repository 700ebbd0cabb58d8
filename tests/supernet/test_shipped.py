"""Super-networks by name, or by file."""

import pytest

from nat2deploy.errors import UserError
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.supernet.shipped import find_supernet, shipped_supernets
from nat2deploy.training.evaluation import SubNetworkEvaluator, judge

SHIPPED = sorted(shipped_supernets())


def test_a_folder_of_its_name_hides_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano-ee-d-fashion-mnist").mkdir()
    assert find_supernet("nano-ee-d-fashion-mnist").is_file()


def test_there_is_one_to_transfer_from():
    assert "nano-ee-d-fashion-mnist" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_one_is_whole_small_and_has_its_card(name):
    path = find_supernet(name)
    assert path.stat().st_size < 10_000_000
    _, info = load_supernet(path)
    assert info.data and info.recipe and info.phases[0] == "full"
    assert info.phases[-1].startswith("expansion")
    card = path.with_suffix(".md").read_text()
    for words in (info.data, *info.labels, "smallest", "largest", "50 random"):
        assert words in card


def test_it_is_as_accurate_as_its_card_says(load_fashion_mnist):
    supernet, info = load_supernet(find_supernet("nano-ee-d-fashion-mnist"))
    data = load_fashion_mnist(base_resolution=max(info.space.resolutions))
    card = find_supernet("nano-ee-d-fashion-mnist").with_suffix(".md").read_text()
    evaluator = SubNetworkEvaluator(data, seed=0)
    for role, architecture in (("smallest", info.space.smallest()), ("largest", info.space.largest())):
        (line,) = (line for line in card.splitlines() if line.startswith(f"| {role} |"))
        told = float(line.split("|")[2].strip().rstrip("%"))
        network = evaluator.network(supernet, architecture)
        found = judge(network, data, data.test, architecture.resolution)
        # Other processors sum in another order: a few of 10,000 images may change sides.
        assert 100 * found.top1 == pytest.approx(told, abs=0.15)


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"")
    assert find_supernet(own) == own
    monkeypatch.chdir(tmp_path)
    (tmp_path / SHIPPED[0]).write_bytes(b"")
    assert str(find_supernet(SHIPPED[0])) == SHIPPED[0]


def test_neither_says_what_is_shipped(tmp_path):
    with pytest.raises(UserError, match=f"no super-network .*shipped: .*{SHIPPED[0]}"):
        find_supernet(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match="no super-network"):
        find_supernet(tmp_path)
