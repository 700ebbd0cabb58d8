"""The runner as it travels: run.py beside the model, its modules in the folder runner."""

from __future__ import annotations

from importlib import resources

RUN_NAME = "run.py"


def runner_files() -> dict[str, bytes]:
    """Return the content of each file by its path in a bundle."""
    found = {}
    for source in resources.files("nat2deploy.deploy.runner").iterdir():
        if source.name.endswith(".py"):
            place = source.name if source.name == RUN_NAME else f"runner/{source.name}"
            found[place] = source.read_bytes()
    return dict(sorted(found.items()))
