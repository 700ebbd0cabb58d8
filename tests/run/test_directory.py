"""A run directory by itself."""

import pytest

from nat2deploy.errors import UserError
from nat2deploy.run.config import SearchConfig
from nat2deploy.run.directory import RunDirectory
from nat2deploy.search.settings import SearchSettings


def test_other_settings_are_named_to_the_last_key(tmp_path):
    run = RunDirectory(tmp_path / "run")
    old = SearchConfig(supernet="w", data="digits", settings=SearchSettings(searcher="nsga3"))
    run.begin(old)
    run.begin(old)
    now = old.model_copy(update={"settings": SearchSettings(), "budgets": ("params<=1M",)})
    with pytest.raises(UserError, match=r"other settings \(budgets, settings.searcher\)"):
        run.begin(now)
