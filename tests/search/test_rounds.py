"""Archives of rounds, replayed from what was judged."""

from __future__ import annotations

from nat2deploy.cost.model import CostModel
from nat2deploy.search.archive import ArchiveFile, Evaluation
from nat2deploy.search.costs import Objectives
from nat2deploy.search.rounds import Rounds
from nat2deploy.search.settings import SearchSettings


def test_a_search_of_a_thousand_rounds_is_replayed(encoding, tmp_path):
    objectives = Objectives(CostModel(encoding.space, 10, None), encoding, [], ("macs",), False)
    settings = SearchSettings(preset="fixed", archive_size=4, rounds=1200)
    file = ArchiveFile(tmp_path / "archive.jsonl", encoding.space)
    small, large = encoding.space.smallest(), encoding.space.largest()

    def add(architecture, version, role, top1):
        file.evaluations.append(
            Evaluation(architecture, version, role, 1.0, objectives.values(architecture, top1))
        )

    add(small, 0, "archive", 0.5)
    for version in range(1200):
        add(large, version, "candidate", 0.6 + version / 1e5)
    rounds = Rounds(file, objectives, settings)
    assert [e.version for e in rounds.archive(1200)] == [0, 1199]
    assert [e.version for e in rounds.merged(600)] == [0, 600]
