"""What was probably meant, at every level of everything that people write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from nat2deploy.cost.table import LatencyTable
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.nearest import choice, key_hint, nearest
from nat2deploy.run.config import PipelineConfig, SearchConfig, load_pipeline
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.target import Profile, load_profile


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = 1


class Root(BaseModel):
    model_config = ConfigDict(extra="forbid")
    by_name: dict[str, Leaf] = {}
    several: tuple[Leaf, ...] | None = None
    leaf: Leaf = Leaf()
    rate: float = 1.0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"rat": 1}, "rat: unknown key; did you mean 'rate'?"),
        ({"leaf": {"epoch": 1}}, "leaf.epoch: unknown key; did you mean 'epochs'?"),
        ({"several": [{}, {"epoch": 1}]}, "several.1.epoch: unknown key; did you mean 'epochs'?"),
        ({"by_name": {"pi": {"epoch": 1}}}, "by_name.pi.epoch: unknown key; did you mean 'epochs'?"),
        ({"epochs": 3}, "epochs: unknown key; did you mean 'leaf.epochs'?"),
        ({"zzz": 3}, "zzz: unknown key; choose from by_name, several, leaf, rate"),
        ({"zzz": 3, "yyy": 4}, "choose from by_name, several, leaf, rate (and 1 more)"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(value, told):
    with pytest.raises(UserError) as caught:
        parse(Root, value, "config")
    assert told in str(caught.value)


@given(
    st.recursive(st.integers(), lambda inner: st.dictionaries(st.text(max_size=8), inner) | st.lists(inner))
)
def test_whatever_does_not_fit_is_told_and_never_a_traceback(value):
    try:
        parse(Root, value, "config")
    except UserError as error:
        assert str(error).startswith("config: ")


def models(model):
    """A model and all inside it, with the places that pydantic would name."""
    yield (), model
    for name, field in model.model_fields.items():
        for inner in [
            t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)
        ]:
            yield from (((name, *place), deeper) for place, deeper in models(inner))


def _types(annotation):
    return [annotation, *(t for part in getattr(annotation, "__args__", ()) for t in _types(part))]


@pytest.mark.parametrize("model", [PipelineConfig, SearchConfig, Profile, SearchSpace])
def test_no_level_of_what_people_write_takes_an_unknown_key(model):
    """Each key of each level, misspelt, is refused, and the right one named."""
    levels = list(models(model))
    assert len(levels) > 1
    for place, inner in levels:
        assert inner.model_config.get("extra") == "forbid", inner
        for name in inner.model_fields:
            assert name in key_hint(model, (*place, f"{name}z")), (place, name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data = 'digits'\n[search]\nround = 3", "search.round: unknown key; did you mean 'rounds'?"),
        ("data = 'digits'\n[search]\nsearcher = 'nsga4'", "; did you mean 'nsga"),
        ("data = 'digits'\n[search]\nsurrogates = ['catbost']", "did you mean 'catboost'?"),
        ("data = 'digits'\nepochs = 3", "epochs: unknown key; did you mean 'train.epochs'?"),
        ("data = 'digits'\n[profile.table]\npi = 't.json'", "profile.table: "),
        ("data = 'digits'\n[finetune]\nmethod = 'aepp'", "did you mean 'aep'?"),
        ("data = 'digits'\n[target]\nbackend = 'onnxruntme'", "did you mean 'onnxruntime'?"),
    ],
)
def test_a_pipelines_mistakes_are_told_with_what_was_meant(tmp_path, text, told):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_pipeline(path)
    assert f"config {path}: " in str(caught.value) and told in str(caught.value)


def test_profiles_and_spaces_name_the_nearest_key_too(tmp_path, tiny_space_toml):
    profile = tmp_path / "profile.toml"
    profile.write_text("name = 'mine'\n[target]\nthread = 2\n")
    with pytest.raises(UserError, match=r"target.thread: unknown key; did you mean 'threads'\?"):
        load_profile(profile)
    space = tmp_path / "space.toml"
    space.write_text(tiny_space_toml.replace("kernels =", "kernel ="))
    with pytest.raises(UserError, match=r"kernel: unknown key; did you mean 'kernels'\?"):
        load_space(str(space))
    space.write_text(tiny_space_toml.replace("stride = 1", "strides = 1", 1))
    with pytest.raises(UserError, match=r"stages.0.strides: unknown key; did you mean 'stride'\?"):
        load_space(str(space))


def test_names_that_look_like_nothing_get_all_that_there_are():
    assert nearest("catbost", ["catboost", "ridge"]) == "catboost"
    assert nearest("", ["catboost"]) is None
    assert choice("xyz", ["catboost", "ridge"]) == "choose from catboost, ridge"


def test_a_files_version_is_told_by_pydantic_alone():
    """A wrong literal that is no word gets no hint."""
    with pytest.raises(ValidationError):
        LatencyTable.model_validate({"schema_version": 99})
    with pytest.raises(UserError) as caught:
        parse(LatencyTable, {"schema_version": 99}, "table")
    assert "did you mean" not in str(caught.value)
