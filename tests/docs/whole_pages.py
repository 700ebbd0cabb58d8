"""Each page's blocks as they stand, those that need minutes among them; `make docs-blocks`, an hour or two.

Not collected by the suite, which runs what takes seconds. Each page goes on from what the tutorial ends with.
"""

import shutil

import pytest
from doc_blocks import blocks, pages
from doc_world import TUTORIAL, make_world, run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the pages speak of, and the tutorial's run."""
    return make_world(tmp_path_factory.mktemp("world"), whole=True)


@pytest.mark.parametrize("page", [page for page in pages() if page != TUTORIAL])
def test_the_pages_blocks_run_as_they_stand(world, page, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(world, folder, symlinks=True)
    for block in blocks(page):
        run(block, folder, whole=True)
