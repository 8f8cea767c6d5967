"""What holds for all tests: none depends on what its machine has downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope='session', autouse=True)
def empty_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache of torch.hub without MiDaS, for child processes too."""
    home = tmp_path_factory.mktemp('torch')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCH_HOME', str(home))
        patch.delenv('INFINITE_NATURE_MIDAS', raising=False)
        yield home / 'hub'
