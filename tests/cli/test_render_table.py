"""What `table show` and a profile's end say of a table."""

from pathlib import Path

import pytest

from nat2deploy.cli.render_table import print_table
from nat2deploy.cost.table import load_table


@pytest.fixture(scope="module")
def shipped():
    return load_table(Path("nano-x86-1-thread-int8"))


@pytest.fixture
def shown(capsys):
    def shown(table):
        print_table(table, as_json=False)
        return {line[:12].strip(): line[13:] for line in capsys.readouterr().out.splitlines()}

    return shown


@pytest.fixture
def doubts(capsys):
    def doubts(table):
        print_table(table, as_json=False)
        out = capsys.readouterr().out
        return [words for words in ("did not settle", "speed drifted") if words in out]

    return doubts


def test_what_did_not_settle_and_a_drift_are_shown(shipped, capsys, doubts):
    print_table(shipped, as_json=False)
    out = capsys.readouterr().out
    assert "3 of 303 blocks did not settle within the time" in out
    assert "up to 38.6% off its median" in out
    settled = {key: e.model_copy(update={"converged": True}) for key, e in shipped.entries.items()}
    quiet = shipped.model_copy(update={"drift": 0.04, "entries": settled})
    assert doubts(quiet) == []
    networks = tuple(n.model_copy(update={"converged": n.classes != 2}) for n in shipped.networks)
    assert doubts(quiet.model_copy(update={"networks": networks})) == ["did not settle"]


def test_both_noises_are_shown_and_which_one_decides(shipped, shown):
    assert shipped.network_noise is None  # a table of before the field
    certified = f"networks {shipped.certificate.noise:.2%}".replace("%", " %")
    assert shown(shipped)["noise"].startswith(
        certified + ", which decides on the certificate (at most 3.00 %)"
    )
    noisy = shipped.model_copy(update={"network_noise": 0.05, "certificate": None, "noise_floor": 0.011})
    words = shown(noisy)
    assert words["noise"].startswith("networks 5.00 %, which decides") and words["noise"].endswith(
        "blocks 1.10 %"
    )
    assert words["certificate"].startswith("none")
    assert "networks not kept" in shown(noisy.model_copy(update={"network_noise": None}))["noise"]
