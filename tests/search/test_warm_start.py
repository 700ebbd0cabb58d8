"""What a search takes from an earlier archive."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_searches import SETTINGS, lines

from nat2deploy.cost.model import CostModel
from nat2deploy.cost.precisions import PrecisionCosts
from nat2deploy.errors import UserError
from nat2deploy.run.front import _judged
from nat2deploy.search.archive import ArchiveFile, Evaluation, read_archive
from nat2deploy.search.costs import Objectives
from nat2deploy.search.initialisation import always_drawn
from nat2deploy.search.survival import reference_directions
from nat2deploy.search.warm_start import Known, choose_start, load_start, save_start
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.supernet.checkpoint import load_supernet


@pytest.fixture
def earlier(undisturbed, space):
    return read_archive(undisturbed[0] / "archive.jsonl", space)


def choose(earlier, search, count, version=None):
    return choose_start(
        earlier,
        search.objectives,
        count,
        version=version,
        without=always_drawn(search.objectives),
        seed=0,
        directions=search.rounds.directions,
    )


def test_the_best_by_the_new_objectives_within_the_new_budgets(earlier, begin, tmp_path):
    params = {e.architecture: e.values["params"] for e in earlier}
    limit = sorted(params.values())[len(params) // 2]
    search = begin(tmp_path, f"params<={limit:.0f}")
    inside = {a for a, count in params.items() if count <= limit} - set(always_drawn(search.objectives))
    assert 2 < len(inside) < len(params) - 2
    assert set(choose(earlier, search, 1000)) == inside
    few = choose(earlier, search, 2)
    last = {e.architecture: e for e in earlier}
    top = max(inside, key=lambda a: (last[a].values["top1"], -params[a]))
    assert len(few) == 2 and top in few
    assert list(few.values()) == [None, None]


def test_accuracies_are_kept_where_they_are_of_the_weights(earlier, begin, tmp_path):
    search = begin(tmp_path)
    chosen = choose(earlier, search, 1000, version=2)
    of_last = {e.architecture: Known(e.values["top1"], e.loss) for e in earlier if e.version == 2}
    for architecture, known in chosen.items():
        assert known == of_last.get(architecture)
    assert set(of_last) <= set(chosen)  # those that are drawn anyway, too
    assert any(known is None for known in chosen.values())


def test_architectures_of_other_resolutions_are_left_out(earlier, begin, tmp_path, space):
    other = space.model_copy(update={"resolutions": (20,)})
    assert choose(earlier, begin(tmp_path, within=other), 1000) == {}


def test_a_warm_start_is_written_and_read(earlier, begin, tmp_path, space):
    start = choose(earlier, begin(tmp_path / "run"), 1000, version=2)
    save_start(start, tmp_path / "start.json")
    assert load_start(tmp_path / "start.json", space) == start
    assert list(load_start(tmp_path / "start.json", space)) == list(start)
    (tmp_path / "start.json").write_text('{"networks": [{"architecture": {}}]}')
    with pytest.raises(UserError, match=r"warm start .*start\.json"):
        load_start(tmp_path / "start.json", space)


def test_a_search_judges_only_what_is_not_known(undisturbed, earlier, begin, tmp_path):
    folder = undisturbed[0]
    search = begin(tmp_path, of=folder / "supernet.safetensors")
    search.start = choose(earlier, search, SETTINGS.archive_size - 2, version=2)
    judged = []
    evaluator = search.judge.evaluator

    def noting(supernet, architecture):
        if search.weights.version == 0:
            judged.append(architecture)
        return evaluator(supernet, architecture)

    search.judge.evaluator = noting
    search.run()
    first = [e for e in search.file.of_version(0) if e.role == "archive"]
    assert len(first) == SETTINGS.archive_size
    assert set(search.start) - set(always_drawn(search.objectives)) <= {e.architecture for e in first}
    known = [e for e in first if search.start.get(e.architecture)]
    assert known and not {e.architecture for e in known} & set(judged)
    assert {e.architecture for e in search.file.evaluations if e.taken_over} == {
        e.architecture for e in known
    }
    assert sum(e.is_work for e in search.file.of_version(0)) == len(judged)  # no more was work of this run
    again = ArchiveFile(search.file.path, search.encoding.space)
    assert (again.evaluations, again.judged) == (search.file.evaluations, search.file.judged)
    assert _judged(search.file.path) == search.file.judged == search.history[-1]["evaluations"]
    for evaluation in known:  # a kept accuracy is what judging again would give
        fresh = evaluator(load_supernet(folder / "supernet.safetensors")[0], evaluation.architecture)
        assert (fresh.top1, fresh.loss) == (evaluation.values["top1"], evaluation.loss)


def test_reading_an_archive_leaves_it_as_it_is(undisturbed, tmp_path, space):
    path = tmp_path / "archive.jsonl"
    half = "\n".join(lines(undisturbed[0]))[:-30]
    path.write_text(half)
    assert len(read_archive(path, space)) == len(lines(undisturbed[0])) - 1
    assert path.read_text() == half
    assert len(ArchiveFile(path, space).evaluations) == len(lines(undisturbed[0])) - 1
    assert path.read_text() != half
    with pytest.raises(UserError, match="no archive at"):
        read_archive(tmp_path / "none.jsonl", space)


@pytest.mark.parametrize("choices", [(), ("fp32", "int8"), ("fp16", "int8")])
def test_precisions_of_an_earlier_search_are_kept_where_there_is_the_choice(space, choices):
    small, large = space.smallest(), space.largest()
    judged = {(small, "fp32"): 0.9, (small, "int8"): 0.8, (large, None): 0.7}
    earlier = [
        Evaluation(replace(a, precision=p), 3, "archive", 0.1, {"top1": top1})
        for (a, p), top1 in judged.items()
    ]
    models = {p: CostModel(space, 10, None) for p in choices}
    costs = PrecisionCosts(models) if choices else CostModel(space, 10, None)
    objectives = Objectives(costs, IntegerEncoding(space, choices), ())
    found = choose_start(
        earlier, objectives, 100, version=3, without=(), seed=0, directions=reference_directions(2, 10)
    )
    top1 = {a: None if known is None else known.top1 for a, known in found.items()}
    if not choices:
        assert top1 == {small: 0.9, large: 0.7}
    elif choices[0] == "fp32":
        assert top1 == {
            replace(small, precision="fp32"): 0.9,
            replace(small, precision="int8"): 0.8,
            replace(large, precision="fp32"): 0.7,
        }
    else:  # floats of 32 bits are no choice: those of 16 are judged anew
        assert top1 == {
            replace(small, precision="fp16"): None,
            replace(small, precision="int8"): 0.8,
            replace(large, precision="fp16"): None,
        }
