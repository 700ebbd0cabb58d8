"""Nothing that ends a search changes its result."""

from __future__ import annotations

import functools
import json

import pytest
from small_searches import Listener, lines, result

from nat2deploy.search import weights
from nat2deploy.supernet.checkpoint import save_supernet
from nat2deploy.training import supernet as training

# Where a search is ended: stage, round, steps done of the stage.
MOMENTS = [
    ("warm-up", 0, 2),
    ("archive", 0, 1),
    ("archive", 0, 5),
    ("round", 0, 0),
    ("surrogate", 0, 0),
    ("evolve", 0, 0),
    ("evaluate", 0, 2),
    ("adapt", 0, 1),
    ("adapt", 0, 3),
    ("archive", 0, 7),  # the last of the first archive
    ("evaluate", 1, 3),
    ("adapt", 1, 2),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m[0]}-{m[1]}-{m[2]}")
def test_ended_at_any_moment_it_goes_on_and_ends_the_same(
    undisturbed, begin, foreign_source, tmp_path, moment
):
    listener = Listener(lambda s, _: (s.stage, s.round, s.done) == moment)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, listener=listener, of=foreign_source).run()
    archive = begin(tmp_path, of=foreign_source).run()
    assert archive == undisturbed[1]
    assert result(tmp_path) == result(undisturbed[0])


@pytest.mark.parametrize("done", [1, 4, 7])
def test_ended_while_the_archive_is_judged_again_it_ends_the_same(
    undisturbed, begin, foreign_source, tmp_path, done
):
    def re_evaluating(status, _):
        again = status.stage == "archive" and json.loads(lines(tmp_path)[-1])["version"] == 1
        return again and status.done == done

    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, listener=Listener(re_evaluating), of=foreign_source).run()
    assert len(lines(tmp_path)) == 10 + done
    begin(tmp_path, of=foreign_source).run()
    assert result(tmp_path) == result(undisturbed[0])


def test_ended_again_and_again_it_ends_the_same(
    undisturbed, begin, foreign_source, tmp_path, killed, monkeypatch
):
    monkeypatch.setattr(training, "run_loop", functools.partial(training.run_loop, save_every_s=-1.0))
    ends = 0
    for moment in range(2, 80, 2):
        try:
            begin(
                tmp_path,
                listener=Listener(lambda _, n, moment=moment: n == moment, killed),
                of=foreign_source,
            ).run()
        except killed:
            ends += 1
        else:
            break
    assert ends > 8
    assert result(tmp_path) == result(undisturbed[0])


def test_a_half_written_line_is_judged_again(undisturbed, begin, foreign_source, tmp_path, killed):
    with pytest.raises(killed):
        begin(
            tmp_path, listener=Listener(lambda s, _: s.stage == "evaluate", killed), of=foreign_source
        ).run()
    path = tmp_path / "archive.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    begin(tmp_path, of=foreign_source).run()
    assert result(tmp_path) == result(undisturbed[0])


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("written", [False, True])
def test_ended_while_weights_are_written_it_ends_the_same(
    undisturbed, begin, foreign_source, tmp_path, killed, monkeypatch, version, written
):
    def saves_and_dies(path, supernet, info):
        dies = info.version == version and path.name == "supernet.safetensors"
        if written or not dies:
            save_supernet(path, supernet, info)
        if dies:
            raise killed

    with monkeypatch.context() as patch:
        patch.setattr(weights, "save_supernet", saves_and_dies)
        with pytest.raises(killed):
            begin(tmp_path, of=foreign_source).run()
    listener = Listener()
    begin(tmp_path, listener=listener, of=foreign_source).run()
    assert result(tmp_path) == result(undisturbed[0])
    trained = ("adapt", version - 1) if version else ("warm-up", 0)
    assert not any((s.stage, s.round) == trained and s.done for s in listener.seen)
    assert not (tmp_path / ".adaptation").exists()


@pytest.mark.parametrize("stage", ["adapt", "evaluate"])
def test_the_same_search_object_can_be_run_again_after_an_interruption(
    undisturbed, begin, foreign_source, tmp_path, stage
):
    search = begin(
        tmp_path, listener=Listener(lambda s, _: s.stage == stage and s.done == 2), of=foreign_source
    )
    with pytest.raises(KeyboardInterrupt):
        search.run()
    search.listener = None
    assert search.run() == undisturbed[1]
    assert result(tmp_path) == result(undisturbed[0])
