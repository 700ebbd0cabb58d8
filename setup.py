"""What pyproject.toml cannot say: the wheel holds the top-level folders of profiles and tables, too."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithShippedFiles(build_py):
    """Puts the folders into the package, where nat2deploy/shipped.py looks for them."""

    def run(self):
        """Build; an editable install finds the folders in the checkout."""
        super().run()
        if not self.editable_mode:
            for folder in ("profiles", "latency_tables"):
                shutil.copytree(folder, Path(self.build_lib) / "nat2deploy" / folder, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShippedFiles})
