"""What a super-network is worth, told by its ends and by random sub-networks."""

import pytest
from PIL import Image

from nat2deploy.data.load import load_data
from nat2deploy.errors import UserError
from nat2deploy.run.evaluate import evaluate
from nat2deploy.space.lowering import lower, total_macs
from nat2deploy.supernet.checkpoint import load_supernet
from nat2deploy.training.evaluation import SubNetworkEvaluator


def test_ends_and_distinct_random_networks_on_the_split_asked_for(outcome):
    path = outcome.out / "supernet.safetensors"
    found = evaluate(path, "digits", networks=5, split="validation", seed=3)
    assert [network.role for network in found] == ["smallest", "largest", *["random"] * 5]
    assert len({network.id for network in found}) >= 6
    supernet, _ = load_supernet(path)
    data = load_data("digits", base_resolution=max(supernet.space.resolutions))
    own = SubNetworkEvaluator(data, seed=3)(supernet, supernet.space.largest())
    assert (found[1].top1, found[1].images) == (own.top1, len(data.validation))
    assert found[1].macs == total_macs(lower(supernet.space, supernet.space.largest(), 10))
    assert found[0].macs < min(network.macs for network in found[2:]) < found[1].macs
    tested = evaluate(path, "digits", networks=1, split="test", seed=3)
    assert tested[0].images == len(data.test)


def test_other_classes_and_other_splits_are_refused(outcome, tmp_path):
    path = outcome.out / "supernet.safetensors"
    with pytest.raises(UserError, match="choose validation or test"):
        evaluate(path, "digits", networks=1, split="train")
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            Image.new("RGB", (20, 20), (number * 20, 0, 0)).save(tmp_path / label / f"{number}.png")
    with pytest.raises(
        UserError, match=r"has other classes than super-network .*: 2 \(a, b\), not 10 \(0, 1, 2, \.\.\.\)"
    ):
        evaluate(path, f"imagefolder:{tmp_path}", networks=1, split="validation")
