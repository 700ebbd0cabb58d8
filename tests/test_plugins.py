"""Plug-ins: found by name, loaded when needed, and told plainly when they are broken."""

import os
from importlib.metadata import EntryPoint

import pytest

from nat2deploy import plugins
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.plugins import KINDS, Registry, known, load_plugin, plugin_names, register
from nat2deploy.search.regressors import SURROGATES, SurrogateKind
from nat2deploy.search.settings import SearchSettings
from nat2deploy.target import Target


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    """No plug-in of another test, and none of this machine."""
    monkeypatch.setattr(plugins, "_registered", {})
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())
    plugins._load_files.cache_clear()
    yield
    plugins._load_files.cache_clear()


@pytest.fixture
def offered(monkeypatch):
    """What makes an installed package offer something."""

    def offer(kind: str, name: str, value: str) -> None:
        point = EntryPoint(name, value, f"nat2deploy.{kind}s")
        monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else ())

    return offer


@pytest.fixture
def use_file(tmp_path, monkeypatch):
    """What writes a plug-in's file and names it in the environment."""

    def use(text: str, name: str = "mine.py"):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / name))
        return tmp_path / name

    return use


def make(seed):
    raise AssertionError("nothing is fitted here")


KIND = SurrogateKind(make)


def test_a_registered_name_is_accepted_everywhere_that_names_are_checked():
    with pytest.raises(
        UserError, match=r"surrogates.0: no surrogate 'mine'; choose from gradient-boosting, "
    ):
        parse(SearchSettings, {"surrogates": ["mine"]}, "settings")
    register("surrogate", "mine", KIND)
    assert parse(SearchSettings, {"surrogates": ["mine"]}, "settings").surrogates == ("mine",)
    assert SURROGATES["mine"] is KIND
    assert "mine" not in dict(SURROGATES)  # nat2deploy's own stay what they are
    with pytest.raises(UserError, match="did you mean 'mine'"):
        parse(SearchSettings, {"surrogates": ["mines"]}, "settings")


def test_an_installed_packages_is_imported_when_it_is_looked_up_and_not_before(offered):
    offered("surrogate", "theirs", "no_such_module:KIND")
    assert plugin_names("surrogate") == ["theirs"]
    assert SearchSettings(surrogates=("theirs",)).surrogates == ("theirs",)
    with pytest.raises(
        UserError, match="surrogate 'theirs' of no_such_module:KIND cannot be loaded: ModuleNotFoundError"
    ):
        SURROGATES["theirs"]
    offered("surrogate", "theirs", f"{__name__}:KIND")
    assert SURROGATES["theirs"].make is make


def test_what_is_no_such_thing_is_refused(offered):
    register("surrogate", "wrong", make)
    with pytest.raises(UserError, match=r"surrogate 'wrong' of this program is no SurrogateKind; see"):
        SURROGATES["wrong"]
    with pytest.raises(UserError, match="no surrogate 'other'; install"):
        SURROGATES["other"]
    with pytest.raises(UserError, match="no kind 'surogate'; did you mean 'surrogate'"):
        register("surogate", "a", KIND)
    with pytest.raises(UserError, match="cannot be called 'a b'"):
        register("surrogate", "a b", KIND)


def test_a_name_of_nat2deploys_own_is_refused_and_its_own_stays():
    register("surrogate", "ridge", KIND)
    assert SURROGATES["ridge"] is not KIND
    with pytest.raises(UserError, match="surrogate 'ridge' of this program is nat2deploy's own; rename it"):
        parse(SearchSettings, {"surrogates": ["something"]}, "settings")


def test_a_file_is_run_once_and_only_when_asked_for_a_name(use_file, tmp_path):
    log = tmp_path / "log"
    use_file(
        "from nat2deploy.plugins import register\nfrom nat2deploy.search.regressors import SurrogateKind\n"
        f"open({str(log)!r}, 'a').write('run ')\nregister('surrogate', 'filed', SurrogateKind(lambda seed: None))\n"
    )
    assert SearchSettings(surrogates=("ridge",)) and not log.exists()
    assert SearchSettings(surrogates=("filed",)).surrogates == ("filed",)
    assert SURROGATES["filed"].features == "integer"
    assert log.read_text() == "run "


@pytest.mark.parametrize(
    ("text", "told"),
    [("1 / 0", "cannot be loaded: ZeroDivisionError: division"), ("def", "cannot be loaded: SyntaxError")],
)
def test_a_file_that_fails_is_told_in_one_line(use_file, text, told):
    path = use_file(text)
    with pytest.raises(UserError) as caught:
        parse(SearchSettings, {"surrogates": ["filed"]}, "settings")
    assert str(path) in str(caught.value) and told in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(monkeypatch, tmp_path):
    for place in (tmp_path / "none.py", tmp_path):
        plugins._load_files.cache_clear()
        monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join(["", str(place)]))
        with pytest.raises(UserError, match="which is no Python file"):
            plugin_names("backend")


def test_a_backend_says_what_it_runs():
    class Runs:
        precisions = {"cpu": ("fp32",)}  # noqa: RUF012

    class Silent:
        precisions = {}  # noqa: RUF012

    register("backend", "mine", Runs)
    register("backend", "silent", Silent)
    assert Target(backend="mine").is_plugin and not Target().is_plugin
    for given, told in (
        ({"backend": "mine", "precision": "int8"}, "backend mine runs fp32, not int8"),
        ({"backend": "mine", "device": "cuda"}, "backend mine does not run on cuda:0"),
        ({"backend": "silent"}, "backend 'silent' says of no number format"),
        ({"backend": "mime"}, "backend: no backend 'mime'; did you mean 'mine'?"),
    ):
        with pytest.raises(UserError) as caught:
            parse(Target, given, "target")
        assert told in str(caught.value)


def test_names_are_checked_against_both():
    check = known("searcher", ("a",))
    assert check("a") == "a"
    with pytest.raises(ValueError, match="no searcher 'b'; choose from a"):
        check("b")
    register("searcher", "b", make)
    assert check("b") == "b" and load_plugin("searcher", "b", object) is make
    assert Registry("searcher", object, {"a": 1})["b"] is make


def test_every_registry_is_of_a_kind():
    from nat2deploy.search import distribution, initialisation, searchers, selection, update

    found = [SURROGATES, initialisation.INITIALISATIONS, update.UPDATES, selection.SUBSETS]
    found += [distribution.DISTRIBUTIONS, searchers.SEARCHERS]
    assert {one.kind for one in found} | {"backend"} == set(KINDS)
