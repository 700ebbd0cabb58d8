"""Networks whose bundles take longer than their budget; one of a slower machine is what verifying finds."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest

from nat2deploy.cli.render import print_outcome
from nat2deploy.deploy.bundle import open_bundle
from nat2deploy.deploy.verify import Check
from nat2deploy.errors import UnfitNetworkError, UserError
from nat2deploy.report.write import write_report
from nat2deploy.run import deploy_front as module
from nat2deploy.run.config import load_pipeline
from nat2deploy.run.deploy_front import deploy_front
from nat2deploy.run.front import Front, FrontNetwork, Measured, load_front, save_front
from nat2deploy.run.within_budget import MOST_EXPORTED, TooSlow, next_within, too_slow

LIMIT_MS = 50.0


def network(name, top1, latency_ms, *, feasible=True, measured_ms=None, on=""):
    seen = None
    if measured_ms is not None:
        fields = dict.fromkeys(("p95_ms", "p99_ms", "ci_low_ms", "ci_high_ms"), measured_ms)
        seen = Measured(median_ms=measured_ms, samples=5, **fields)
    return FrontNetwork(
        id=name,
        architecture={},
        top1=top1,
        costs={f"latency_ms@{on}" if on else "latency_ms": latency_ms, "params": 1000.0},
        feasible=feasible,
        measured=None if on else seen,
        measured_on={on: seen} if on and seen else {},
    )


def front_of(*networks):
    return Front(
        space="s",
        data="digits",
        budgets=("latency<=50ms",),
        objectives=("top1", "latency_ms"),
        rounds=1,
        evaluations=9,
        complete=True,
        hypervolume=None,
        networks=networks,
    )


@pytest.fixture
def manifest(outcome):
    return outcome.manifest


@pytest.fixture
def slower(outcome):
    """What verifying finds where all takes longer by a factor."""
    return lambda factor, found=outcome.verification: _slower(found, factor)


def _slower(found, factor):
    fields = {
        f"{which}_ms": getattr(found.latency, f"{which}_ms") * factor for which in ("median", "p95", "p99")
    }
    latency = replace(found.latency, **fields)
    kept = latency.median_ms <= LIMIT_MS
    check = Check("latency<=50ms", kept, f"{latency.median_ms:.3f} ms of 50 ms")
    return replace(found, latency=latency, checks=(*found.checks[:3], check))


def test_a_bundle_within_its_budgets_is_kept(manifest, slower):
    assert too_slow(network("a", 0.9, 1.0), manifest, slower(1.0), "") is None


def test_a_bundle_that_was_not_measured_is_kept(manifest, slower):
    assert too_slow(network("a", 0.9, 1.0), manifest, replace(slower(1e6), latency=None), "") is None


def test_a_bundle_for_another_machine_is_kept_however_slow_this_one_is(manifest, slower):
    elsewhere = replace(slower(1e6), same_machine=False)
    assert too_slow(network("a", 0.9, 1.0), manifest, elsewhere, "") is None


@pytest.mark.parametrize("on", ["", "pi5"])
@pytest.mark.parametrize(("measured_ms", "taken_ms"), [(None, 40.0), (48.0, 48.0)])
def test_how_much_slower_is_by_what_the_search_measured_else_predicted(
    manifest, slower, outcome, on, measured_ms, taken_ms
):
    found = slower(60.0 / outcome.verification.latency.median_ms)
    missed = too_slow(network("a", 0.9, 40.0, measured_ms=measured_ms, on=on), manifest, found, on)
    assert missed.network == "a"
    assert missed.slowdown == pytest.approx({"latency_ms": 60.0 / taken_ms})
    assert missed.checks == ("latency<=50ms: 60.000 ms of 50 ms",)


def test_the_next_is_the_most_accurate_that_is_as_much_below(manifest):
    front = front_of(
        network("fast", 0.7, 10.0),
        network("fits", 0.8, 41.0),
        network("nearly", 0.85, 42.0),
        network("unfit", 0.84, 20.0, feasible=False),
        network("best", 0.9, 49.0),
    )
    missed = TooSlow("best", (), {"latency_ms": 1.2})
    assert next_within(front, manifest, [missed], "").id == "fits"
    second = TooSlow("fits", (), {"latency_ms": 1.3})
    assert next_within(front, manifest, [missed, second], "").id == "fast"


def test_there_is_no_next_where_all_are_too_slow_or_enough_were_tried(manifest):
    front = front_of(network("a", 0.8, 45.0), network("b", 0.9, 49.0))
    assert next_within(front, manifest, [TooSlow("b", (), {"latency_ms": 1.2})], "") is None
    tried = [TooSlow(str(number), (), {"latency_ms": 1.01}) for number in range(MOST_EXPORTED)]
    assert next_within(front, manifest, tried, "") is None
    assert next_within(front, manifest, tried[1:], "").id == "b"


def test_what_is_fine_tuned_counts_by_its_own_accuracy_and_budgets(manifest, outcome):
    front = front_of(network("a", 0.7, 10.0), network("b", 0.8, 10.0), network("c", 0.9, 49.0))
    missed = [TooSlow("c", (), {"latency_ms": 1.2})]
    report = outcome.finetuned[0]

    def tuned(top1, feasible=True):
        after = report.validation_after.model_copy(update={"top1": top1})
        return report.model_copy(update={"validation_after": after, "feasible": feasible})

    assert next_within(front, manifest, missed, "", {"a": tuned(0.95), "b": tuned(0.85)}).id == "a"
    assert next_within(front, manifest, missed, "", {"a": tuned(0.95, False)}).id == "b"
    assert next_within(front, manifest, missed, "", {}, {"b"}).id == "a"


@pytest.fixture
def slow_run(outcome, config_path, tmp_path, monkeypatch):
    """The whole way's folder, of a front with a fast network, on a machine where all but that is too slow."""
    out = tmp_path / "run"
    shutil.copytree(outcome.out, out)
    front = load_front(out / "search" / "front.json")
    best = front.best
    networks = tuple(
        one if one.id == best.id else one.model_copy(update={"costs": {**one.costs, "latency_ms": 1e-6}})
        for one in (n.model_copy(update={"measured": None}) for n in front.networks)
    )
    front = front.model_copy(update={"networks": networks})
    save_front(front, out / "search" / "front.json")
    real = module.verify_bundle

    def verify(path, *, seed):
        found = real(path, seed=seed, time_limit_s=0.2)
        return _slower(found, 60.0 / found.latency.median_ms if found.network == best.id else 1.0)

    monkeypatch.setattr(module, "verify_bundle", verify)
    return load_pipeline(config_path), front, out


def test_a_bundle_over_its_budget_is_replaced_by_the_next_networks(slow_run, outcome, capsys):
    config, front, out = slow_run
    second = max((n for n in front.networks if n.feasible and n.id != front.best.id), key=lambda n: n.top1)
    made = deploy_front(config, front, out, lambda stage: nullcontext())
    assert [one.network for one in made.missed] == [front.best.id]
    assert [one.id for one in made.finetuned] == [front.best.id, second.id]
    assert made.manifest.network == second.id and made.verification.ok
    with open_bundle(out / "bundle") as bundle:
        assert bundle.manifest.network == second.id
    told = json.loads((out / "verification.json").read_text())
    assert told["ok"] and told["missed"] == [
        {
            "network": front.best.id,
            "checks": ["latency<=50ms: 60.000 ms of 50 ms"],
            "slowdown": {"latency_ms": pytest.approx(60.0 / front.best.costs["latency_ms"])},
        }
    ]
    over = f"network {front.best.id} was exported before, and measured over latency<=50ms: 60.000 ms of 50 ms"
    print_outcome(replace(outcome, **vars(made)), as_json=False)
    assert over in capsys.readouterr().out
    page = write_report(out).report.read_text()
    assert over.removeprefix("network ") in page.replace("<code>", "").replace("</code>", "").replace(
        "&lt;", "<"
    )


def test_a_bundle_that_was_slow_for_a_moment_is_kept(slow_run, monkeypatch):
    config, front, out = slow_run
    slow = module.verify_bundle
    seeds = []

    def verify(path, *, seed):
        seeds.append(seed)
        found = slow(path, seed=seed)
        return found if len(seeds) == 1 else _slower(found, 40.0 / found.latency.median_ms)

    monkeypatch.setattr(module, "verify_bundle", verify)
    said = []
    made = deploy_front(
        config, front, out, lambda stage: nullcontext(), lambda *words: said.append(str(words[-1]))
    )
    assert seeds == [config.seed, config.seed + 1]
    assert made.missed == () and made.manifest.network == front.best.id and made.verification.ok
    assert json.loads((out / "verification.json").read_text())["ok"]
    assert f"network {front.best.id} measured over latency<=50ms: 60.000 ms of 50 ms: once more" in said


def test_a_network_that_the_config_names_is_not_replaced(slow_run):
    config, front, out = slow_run
    named = config.export.model_copy(update={"network": front.best.id})
    made = deploy_front(config.model_copy(update={"export": named}), front, out, lambda stage: nullcontext())
    assert made.missed == () and made.manifest.network == front.best.id and not made.verification.ok


def test_after_a_kill_it_begins_with_the_network_that_it_began_with(slow_run):
    """What was tuned before the kill may validate better than what comes first."""
    config, front, out = slow_run
    first = deploy_front(config, front, out, lambda stage: nullcontext())
    path = out / "search" / "networks" / first.manifest.network / "finetune.json"
    told = json.loads(path.read_text())
    told["validation_after"]["top1"] = 1.0
    path.write_text(json.dumps(told))
    made = deploy_front(config, front, out, lambda stage: nullcontext())
    assert [one.network for one in made.missed] == [front.best.id]
    assert made.manifest.network == first.manifest.network


def test_a_network_that_cannot_be_exported_leaves_the_bundle_before_it(slow_run, monkeypatch):
    config, front, out = slow_run
    real = module.export

    def export(run, exported, *rest):
        if exported.network != front.best.id:
            (run / "networks" / exported.network / ".qat").touch()  # as after tuning for 8 bits
            raise UnfitNetworkError("it has one exit")
        return real(run, exported, *rest)

    said = []
    monkeypatch.setattr(module, "export", export)
    made = deploy_front(
        config, front, out, lambda stage: nullcontext(), lambda *words: said.append(words[-1])
    )
    assert made.manifest.network == front.best.id and made.missed == () and not made.verification.ok
    with open_bundle(out / "bundle") as bundle:
        assert bundle.manifest.network == front.best.id
    assert not list(out.rglob(".qat"))
    assert made.left_out and {one.why for one in made.left_out} == {"it has one exit"}
    told = json.loads((out / "verification.json").read_text())
    assert [one["network"] for one in told["left_out"]] == [one.network for one in made.left_out]
    assert any(str(words).endswith("is left out: it has one exit") for words in said)


def test_a_best_network_that_cannot_be_exported_is_left_out(slow_run, outcome, capsys, monkeypatch):
    config, front, out = slow_run
    real = module.export

    def export(run, exported, *rest):
        if exported.network == front.best.id:
            raise UnfitNetworkError("it has one exit")
        return real(run, exported, *rest)

    monkeypatch.setattr(module, "export", export)
    second = max((n for n in front.networks if n.feasible and n.id != front.best.id), key=lambda n: n.top1)
    made = deploy_front(config, front, out, lambda stage: nullcontext())
    assert made.manifest.network == second.id and made.missed == () and made.verification.ok
    assert [one.id for one in made.finetuned] == [front.best.id, second.id]
    why = [{"network": front.best.id, "why": "it has one exit"}]
    assert json.loads((out / "verification.json").read_text())["left_out"] == why
    print_outcome(replace(outcome, **vars(made)), as_json=False)
    assert f"network {front.best.id} was left out: it has one exit" in capsys.readouterr().out
    page = write_report(out).report.read_text()
    assert f"Network <code>{front.best.id}</code> was left out: it has one exit." in page

    named = config.export.model_copy(update={"network": front.best.id})
    with pytest.raises(UserError, match="it has one exit"):
        deploy_front(config.model_copy(update={"export": named}), front, out, lambda stage: nullcontext())


def test_where_none_can_be_exported_the_first_one_says_why(slow_run, monkeypatch):
    config, front, out = slow_run
    tried = []

    def export(run, exported, *rest):
        tried.append(exported.network)
        raise UnfitNetworkError(f"{exported.network} has one exit")

    monkeypatch.setattr(module, "export", export)
    with pytest.raises(UserError, match=f"{front.best.id} has one exit"):
        deploy_front(config, front, out, lambda stage: nullcontext())
    assert len(tried) == len(set(tried)) == min(MOST_EXPORTED, sum(n.feasible for n in front.networks))


def test_what_is_no_networks_fault_ends_it_at_once(slow_run, monkeypatch):
    config, front, out = slow_run
    tried = []

    def export(run, exported, *rest):
        tried.append(exported.network)
        raise UserError("the disk is full")

    monkeypatch.setattr(module, "export", export)
    with pytest.raises(UserError, match="the disk is full"):
        deploy_front(config, front, out, lambda stage: nullcontext())
    assert tried == [front.best.id]


def test_a_place_that_is_taken_is_refused_before_anything_is_tuned(slow_run, monkeypatch):
    config, front, out = slow_run
    (out / "bundle" / "mine.txt").write_text("x")
    monkeypatch.setattr(module, "finetune", lambda *_: pytest.fail("it tunes"))
    with pytest.raises(UserError, match=r"mine\.txt"):
        deploy_front(config, front, out, lambda stage: nullcontext())
