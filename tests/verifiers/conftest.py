import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmalign.verifiers.pool import VerifierPool


@pytest.fixture(scope="module")
def plugin_folder() -> Iterator[Path]:
    """The folder of the plug-in that does to its process whatever the text names, on the path."""
    folder = Path(__file__).with_name("plugins")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pool(plugin_folder: Path) -> Iterator[VerifierPool]:
    """Two warm workers; a judgement may take 0.6 s."""
    with VerifierPool(2, 0.6, memory_mb=1024) as pool:
        pool.judge_many("llmalign_test_plugin:judge", [("warm", None)])
        yield pool
