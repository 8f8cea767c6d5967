"""The recipe of the aerial model, on tiny frames: from photographs to weights, and on again."""

from __future__ import annotations

import json
from pathlib import Path
import sys

from clips import make_flight, write_clip
import pytest
from ros_probe import make_photo
from safetensors.torch import load_file
import torch
import warp

from infinite_nature_ros.refining import create_model, read_header

sys.path.insert(0, str(Path(__file__).parents[1] / 'scripts'))
import train_default  # noqa: E402

FREE, HELD_OUT, SHARE_ALIKE = 'badlands0', 'beach2', 'beach10-sfiera'


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One small coast; no clips in the user's cache, where compiled kernels stay."""
    warp.init()
    monkeypatch.setenv('WARP_CACHE_PATH', warp.config.kernel_cache_dir)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(train_default, '_QUICK_COASTS',
                        {'count': 1, 'frames': 8, 'size': (64, 96)})


def make(folder: Path, **options: object) -> int:
    """Run the recipe on made-up photographs."""
    photos, clip = folder / 'photos', folder / 'clip'
    if not photos.exists():
        photos.mkdir()
        for name in (FREE, HELD_OUT, SHARE_ALIKE):
            make_photo(photos / f'{name}.jpg', 90, 180)
        write_clip(clip, make_flight(10, step=0.2))
    return train_default.train_default(folder / 'out', photos=photos, clip=clip, quick=True,
                                       **options)


def test_it_makes_weights_and_goes_on_where_it_was(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(train_default, '_QUICK_ITERATIONS', 1)
    assert make(tmp_path) == 0
    out = tmp_path / 'out'
    assert '5/6 stage3: 1 iterations' in capsys.readouterr().out
    monkeypatch.setattr(train_default, '_QUICK_ITERATIONS', 2)
    weights = tmp_path / 'other.safetensors'
    assert make(tmp_path, weights=weights) == 0
    for stage in ('stage1', 'stage2', 'stage3'):
        steps = {path.name for path in (out / stage / 'checkpoints').glob('step-*')}
        assert steps == {'step-00000001', 'step-00000002'}

    facts = json.loads(read_header(weights).provenance)
    assert (facts['step'], facts['config']['model'], facts['config']['size']) == (
        2, 'aerial-small', [96, 96])
    assert facts['sources'] == [f'{FREE}.jpg', 'https://example.org/video', 'procedural coast 0']
    assert facts['licences'] == ['CC0-1.0', 'public-domain']
    tensors, model = load_file(weights), create_model(weights)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    before = load_file(out / 'aerial_small.safetensors')
    assert not all(torch.equal(value, before[name]) for name, value in tensors.items())
    state = model.begin(torch.rand(1, 3, 96, 96), torch.rand(1, 1, 96, 96).clamp(min=0.01))
    assert state['style'].shape == (1, 64)

    monkeypatch.setattr(train_default, '_QUICK', (*train_default._QUICK, 'seed=7'))
    with pytest.raises(ValueError, match=r'stage1 holds a run of other settings'):
        make(tmp_path)


def test_the_stages_are_configurations_that_follow_each_other() -> None:
    first, *others = [stage.config() for stage in train_default.STAGES]
    assert all(config.model == first.model == 'aerial-small' for config in others)
    for stage, config in zip(train_default.STAGES, [first, *others], strict=True):
        assert 0 < stage.until <= config.iterations
        assert config.learns_from == 'flights'


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, 'argv', [
        'train_default.py', '--out', str(tmp_path), '--package', str(tmp_path / 'no.deb')])
    assert train_default.main() == 1
    assert 'no.deb' in capsys.readouterr().err
