"""Every compared search plays by the same rules, and the figures say what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import search as program
import search_methods as methods
from search_report import STEP, report
from search_runs import code_digest, merged, read_runs, without_words, write_runs

from nat2deploy.cost.model import CostModel
from nat2deploy.errors import UserError
from nat2deploy.search.settings import SearchSettings
from nat2deploy.search.tabular import TabularBenchmark, save_tabular
from nat2deploy.search.tabular_model import TabularModel
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.space.search_space import load_space

EVALUATIONS = 64
SMALL = {
    "archive_size": 20,
    "candidates": 8,
    "surrogates": ("ridge",),
    "surrogate_folds": 2,
    "population": 20,
    "generations": 3,
    "distribution": "categorical",
}


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> Iterator[None]:
    """What is asked here holds for fifty trees as for 250."""
    plain = TabularModel._trees
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TabularModel, "_trees", lambda self, seed: plain(self, seed).set_params(max_iter=50))
        yield


@pytest.fixture(scope="module")
def parts(tabular_info):
    """Info, genes and right images of a landscape in which deeper and wider is better, ever less so."""
    space = load_space("nano-ee-d").restrict(resolutions=(28, 32))
    encoding = IntegerEncoding(space)
    drawn = [space.smallest(), *random_architectures(encoding, np.random.default_rng(0), 200)]
    genes = encoding.encode_all(drawn)
    macs = CostModel(space, 10, None).costs_of_genes(genes, encoding)["macs"]
    right = np.rint(1000 * (0.95 - 0.2 / np.sqrt(macs / macs.min()))).astype(np.int64)
    info = tabular_info(space, covariance=((1e-6, 0.0), (0.0, 1e-6)))
    return info, genes, np.stack([right, right], axis=1)


@pytest.fixture(scope="module")
def benchmark(parts):
    info, genes, right = parts
    return TabularBenchmark(info, genes, right, CostModel(info.space, 10, None))


RUN = {
    "setting": "latency-0.2",
    "method": "random",
    "seed": 0,
    "recipe": "r",
    "code": "c",
    "processor_s": 1.0,
    "passes": [1],
}
BUDGET = program.Setting(("params<=120k", "macs<=6M"))


def done(benchmark, search, seed, evaluations=EVALUATIONS):
    task = methods.Task(benchmark, BUDGET.objectives(benchmark), evaluations)
    with pytest.raises(methods.Spent):
        search(task, seed)
    return task


FAST = {**program.PEERS, "linas": partial(methods.linas, generations=10)}


@pytest.mark.parametrize("peer", FAST)
def test_each_peer_spends_all_evaluations_on_distinct_networks_within_the_budgets(benchmark, peer):
    if peer.startswith("optuna"):
        pytest.importorskip("optuna")
    task = done(benchmark, FAST[peer], 1)
    judged = [e.architecture for e in task.trace]
    assert len(set(judged)) == len(judged) == EVALUATIONS
    assert all(e.values["params"] <= 120e3 and e.values["macs"] <= 6e6 for e in task.trace)
    again = done(benchmark, FAST[peer], 1)
    other = done(benchmark, FAST[peer], 2)
    assert [e.architecture for e in again.trace] == judged
    assert [e.architecture for e in other.trace] != judged


def test_ours_takes_what_judged_networks_pass(benchmark):
    task = done(benchmark, methods.nat2deploy(preset="ours", **SMALL), 1)
    found = [e.architecture for e in task.trace]
    assert len(set(found)) == len(found) == len(task.passes) > EVALUATIONS
    assert task.passes == sorted(task.passes) and set(task.passes) == set(range(1, EVALUATIONS + 1))
    for at in range(1, EVALUATIONS + 1):
        judged, *others = [a for a, passes in zip(found, task.passes, strict=True) if passes == at]
        assert set(others) <= set(benchmark.space.passed(judged))
    for evaluation in task.trace:
        assert evaluation.values["top1"] == benchmark.query(evaluation.architecture).validation_top1


@pytest.mark.parametrize("preset", ["ours", "nat2"])
def test_the_search_itself_runs_on_the_benchmark(benchmark, preset):
    few = {"subset_population": 10, "subset_generations": 3} if preset == "nat2" else {}
    alone = {"passed_exits": False}
    task = done(benchmark, methods.nat2deploy(preset=preset, **SMALL, **few, **alone), 1)
    judged = [e.architecture for e in task.trace]
    assert len(set(judged)) == len(judged) == EVALUATIONS
    assert task.passes == [*range(1, EVALUATIONS + 1)]
    assert benchmark.space.smallest() in judged[:20]
    candidates = task.trace[20:]
    inside = [e.values["params"] <= 120e3 and e.values["macs"] <= 6e6 for e in candidates]
    assert np.mean(inside) > (0.95 if preset == "ours" else 0.4)  # NAT2 starts anew each round: few by then
    for evaluation in task.trace[::7]:
        assert evaluation.values["top1"] == benchmark.query(evaluation.architecture).validation_top1


def test_evolution_beats_random_search_where_there_is_something_to_find(benchmark):
    def best(search):
        tasks = [done(benchmark, search, seed, 150) for seed in (1, 2)]
        return np.mean([min(e.error for e in task.trace) for task in tasks])

    assert best(program.PEERS["regularised-evolution"]) < best(program.PEERS["random"])


def test_a_task_counts_a_network_once(benchmark):
    task = methods.Task(benchmark, BUDGET.objectives(benchmark), 2)
    one, two, three = task.draw(np.random.default_rng(0), 3)
    assert task.judge(one) == task.judge(one)
    task.judge(two)
    assert len(task.trace) == 2 and task.knows(one) and not task.knows(three)
    with pytest.raises(methods.Spent):
        task.judge(three)


def test_all_ablations_are_settings_that_agree():
    for preset, variants in program.ABLATIONS.items():
        for policies in variants.values():
            settings = SearchSettings(**{**program.METHODS[preset], **policies})
            assert settings != SearchSettings(**program.METHODS[preset]), policies


def test_figures_are_what_runs_found(benchmark, tmp_path):
    from rich.console import Console

    objectives = program.Setting(("params<=120k",)).objectives(benchmark)
    front = np.array([g for g in benchmark.genes if benchmark.encoding.decode(g).depths == (1,)])[:30]
    everything = benchmark.genes
    runs = [
        {
            "setting": "s",
            "method": name,
            "seed": 0,
            "processor_s": 1.0,
            "genes": genes.tolist(),
            "passes": passes,
        }
        for name, genes, passes in (
            ("all", everything, [*range(1, 202)]),
            ("few", front, [*range(1, len(front) + 1)]),
            ("at-once", everything, [1] * 201),
        )
    ]
    figures = report(benchmark, {"s": objectives}, runs, "all", tmp_path / "p.png", Console(quiet=True))
    found = figures["settings"]["s"]
    assert found["methods"]["all"]["hypervolume"]["mean"][-1] == pytest.approx(1.0)
    assert 0 < found["methods"]["few"]["hypervolume"]["mean"][-1] < 1.0
    assert found["methods"]["at-once"]["hypervolume"]["mean"] == pytest.approx([1.0] * len(found["at"]))
    curve = found["methods"]["all"]["hypervolume"]["mean"]
    assert curve == sorted(curve)
    reached = found["methods"]["few"]["reference_reaches_it_at"]
    few = found["methods"]["few"]["hypervolume"]["mean"][-1]
    points = list(zip(found["at"], curve, strict=True))
    assert reached % STEP == 0
    assert all(volume >= few for at, volume in points if at >= reached)
    assert all(volume < few for at, volume in points if at <= reached - STEP)
    inside = objectives.costs(everything)["params"] <= 120e3
    assert found["known_best"] == pytest.approx(benchmark.accuracies(everything[inside])[:, 0].max())
    assert found["methods"]["all"]["evaluated_for_real"] == 1.0
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_the_program_goes_on_where_it_was(parts, repository, tmp_path, monkeypatch, capsys):
    save_tabular(tmp_path / "b.npz", *parts)
    table = repository / "latency_tables/nano-ee-d-28-32px-x86-1-thread.json"

    def run(seeds, evaluations="20", out="out", more=()):
        given = ["search.py", "--out", str(tmp_path / out), "--benchmark", str(tmp_path / "b.npz"), *more]
        given += ["--table", str(table), "--evaluations", evaluations, "--seeds", seeds, "--json"]
        given += ["--settings", "latency-0.12", "p99-0.25", "--methods", "random", "regularised-evolution"]
        monkeypatch.setattr("sys.argv", given)
        program.main()
        return json.loads(capsys.readouterr().out)

    run("1")
    paths = sorted((tmp_path / "out").glob("*/*/*.json"))
    assert len(paths) == 4
    times = {path: path.stat().st_mtime_ns for path in paths}
    figures = run("2")
    assert {path: path.stat().st_mtime_ns for path in paths} == times
    assert figures["settings"]["latency-0.12"]["methods"]["random"]["runs"] == 2
    assert Path(tmp_path / "out/figures.png").exists()
    assert run("1", "25")["settings"]["p99-0.25"]["at"][-1] == 25  # another recipe: done again

    store = tmp_path / "runs.npz"
    run("1", out="one", more=["--store", str(store)])
    run("1", out="two", more=["--store", str(store), "--first-seed", "1"])
    kept = read_runs(store)
    assert sorted(run["seed"] for run in kept) == [0] * 4 + [1] * 4
    capsys.readouterr()

    def refuse(job, *given):
        raise AssertionError("a stored run was made again")

    monkeypatch.setattr(program, "run", refuse)
    found = run("2", out="again", more=["--stored", str(store)])
    assert found["settings"]["p99-0.25"]["methods"]["random"]["runs"] == 2
    for folder, seed in (("one", 0), ("two", 1)):
        path = f"latency-0.12/random/{seed}.json"
        again = json.loads((tmp_path / "again" / path).read_text())
        assert again == json.loads((tmp_path / folder / path).read_text())


def test_a_store_keeps_runs_of_other_recipes(tmp_path):
    runs = [
        {**RUN, "recipe": recipe, "genes": [[1, 2], [0, 3]][:count], "passes": [1, 1][:count]}
        for recipe, count in (("a", 2), ("b", 1))
    ]
    write_runs(tmp_path / "runs.npz", merged(runs[:1], runs[1:]))
    assert read_runs(tmp_path / "runs.npz") == runs
    assert merged(runs, [{**runs[0], "seed": 9}])[-1]["seed"] == 9
    assert len(merged(runs, runs)) == 2


def test_a_file_of_something_else_holds_no_runs(parts, tmp_path):
    save_tabular(tmp_path / "b.npz", *parts)
    write_runs(tmp_path / "cut.npz", [{**RUN, "genes": [[1, 2]]}])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-50])
    (tmp_path / "text.npz").write_text("runs")
    (tmp_path / "empty.npz").touch()
    for name in ("b.npz", "cut.npz", "text.npz", "empty.npz", "none.npz"):
        with pytest.raises(UserError, match=rf"{name}: no file of searches' runs .*; make one with --store"):
            read_runs(tmp_path / name)


@pytest.mark.parametrize("code", ["older", code_digest()])
def test_runs_of_other_code_are_told(code, parts, repository, tmp_path, monkeypatch, capsys):
    genes = parts[1][:20]
    table = repository / "latency_tables/nano-ee-d-28-32px-x86-1-thread.json"
    save_tabular(tmp_path / "b.npz", *parts)
    given = (tmp_path / "b.npz", table, len(genes))
    recipe = program.recipe(program.Job("latency-0.2", "random", None, 0, Path()), *given)
    passes = [*range(1, len(genes) + 1)]
    run = {**RUN, "code": code, "recipe": recipe, "genes": genes.tolist(), "passes": passes}
    write_runs(tmp_path / "runs.npz", [run])
    line = ["search.py", "--out", tmp_path / "out", "--benchmark", given[0], "--table", table, "--seeds", 1]
    line += ["--evaluations", len(genes), "--settings", "latency-0.2", "--methods", "random", "--json"]
    monkeypatch.setattr("sys.argv", [*map(str, line), "--stored", str(tmp_path / "runs.npz")])
    for taken in ("1 of 1 runs are in ", "0 of 0 runs are in "):
        program.main()
        said = capsys.readouterr().err
        assert taken in said
        assert ("1 of 1 runs were made by other code" in said) is (code == "older")


def test_a_store_of_another_space_is_refused_before_anything_runs(tmp_path, monkeypatch):
    write_runs(tmp_path / "runs.npz", [{**RUN, "genes": [[1, 2]]}])
    line = ["search.py", "--out", str(tmp_path / "out"), "--store", str(tmp_path / "runs.npz")]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(UserError, match="another search space"):
        program.main()
    assert not (tmp_path / "out").exists()


def test_words_are_no_code():
    source = 'def f(x):\n    """Add."""\n    return x + 1  # one\n'
    assert without_words(source) == "def f(x):\n    return x + 1"
    assert without_words(source.replace("Add.", "Add\n    one.")) == without_words(source)
    assert without_words(source.replace("x + 1", "x + 2")) != without_words(source)
    assert without_words('s = "# no comment"\n') == 's = "# no comment"'
