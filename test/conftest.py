"""What tests share: a photo, and that none depends on what its machine has downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ros_probe import make_photo


@pytest.fixture(scope='session', autouse=True)
def empty_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache of torch.hub without MiDaS, for child processes too."""
    home = tmp_path_factory.mktemp('torch')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCH_HOME', str(home))
        patch.delenv('INFINITE_NATURE_MIDAS', raising=False)
        yield home / 'hub'


@pytest.fixture(scope='session')
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a photo: sky over land."""
    return make_photo(tmp_path_factory.mktemp('photo') / 'coast.png')
