"""MiDaS through torch.hub, with a stand-in that has its repository's interface; no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import socket
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from infinite_nature_ros import Flight
from infinite_nature_ros.depth_sources import estimate_disparity, list_sources, midas, registry

# The network sees the brightness of a picture as nearness, in arbitrary units. The transforms
# resize as MiDaS's own do: to a certain width, with the aspect ratio kept to multiples of 32.
HUBCONF = """
dependencies = ['torch']

from pathlib import Path
from types import SimpleNamespace

import torch
from torch.nn import functional

FOLDER = Path(__file__).parent


class Brightness(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, x):
        assert not self.training and not torch.is_grad_enabled()
        with (FOLDER / 'seen').open('a') as file:
            file.write(f'{tuple(x.shape)}\\n')
        return self.gain * x.mean(1) + 100


def _model(gain):
    def entry(pretrained=True):
        assert pretrained
        with (FOLDER / 'loaded').open('a') as file:
            file.write(f'{gain}\\n')
        return Brightness(gain)
    return entry


DPT_Hybrid, DPT_Large, MiDaS_small = _model(300.0), _model(700.0), _model(50.0)


def _transform(width):
    def transform(picture):
        assert picture.dtype == 'uint8' and picture.ndim == 3
        scale = width / picture.shape[1]
        size = [32 * round(length * scale / 32) for length in picture.shape[:2]]
        x = torch.from_numpy(picture / 255.0).float().permute(2, 0, 1)[None]
        return functional.interpolate(x, size, mode='bilinear', antialias=True)
    return transform


def transforms():
    return SimpleNamespace(default_transform=_transform(320), small_transform=_transform(256),
                           dpt_transform=_transform(384))
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Every test starts as a new process does."""
    yield
    midas._load.cache_clear()
    registry._warn_once.cache_clear()


def make_repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / 'hubconf.py').write_text(HUBCONF)
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in in a folder that the user names."""
    folder = make_repository(tmp_path / 'MiDaS')
    monkeypatch.setenv('INFINITE_NATURE_MIDAS', str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty cache of torch.hub, on a machine without a network."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    return tmp_path / 'hub'


def refuse(*_: object, **__: object) -> None:
    raise socket.gaierror(-3, 'Temporary failure in name resolution')


def fill(cache: Path) -> Path:
    """Put the stand-in where torch.hub puts the release of MiDaS."""
    (cache / 'checkpoints').mkdir(parents=True)
    (cache / 'checkpoints' / 'dpt_hybrid_384.pt').touch()
    return make_repository(cache / 'isl-org_MiDaS_v3_1')


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def ramp(height: int = 160, width: int = 256, low: float = 0.2, high: float = 0.8) -> Tensor:
    """Picture that brightens from left to right."""
    return torch.linspace(low, high, width).expand(1, 3, height, width)


def test_disparity_is_stretched_to_the_contract(repository: Path) -> None:
    disparity = estimate_disparity(ramp(), 'midas')
    assert disparity.shape == (1, 1, 160, 256)
    assert disparity.min() == pytest.approx(0.01, abs=1e-6)
    assert disparity.max() == pytest.approx(1, abs=1e-6)
    # Linear in what the network says, whatever its units.
    expected = torch.linspace(0.01, 1, 256).expand(160, 256)
    torch.testing.assert_close(disparity[0, 0, :, 8:-8], expected[:, 8:-8], atol=0.01, rtol=0)


@pytest.mark.parametrize(('height', 'width', 'seen'), [
    (160, 256, '(1, 3, 256, 384)'), (256, 160, '(1, 3, 608, 384)'), (96, 96, '(1, 3, 384, 384)')])
def test_the_aspect_ratio_is_kept(repository: Path, height: int, width: int, seen: str) -> None:
    image = torch.full((1, 3, height, width), 0.2)
    image[..., height // 4:height // 2, width // 4:width // 2] = 0.9
    disparity = estimate_disparity(image, 'midas')
    assert lines(repository / 'seen') == [seen]
    assert torch.equal(disparity[0, 0] > 0.5, image[0, 0] > 0.5)


def test_no_overshoot_at_edges(repository: Path) -> None:
    image = torch.full((1, 3, 160, 256), 0.3)
    image[..., 128:] = 0.7
    disparity = estimate_disparity(image, 'midas')
    assert (disparity[..., :100] < 0.011).all()
    assert (disparity[..., 156:] > 0.999).all()


def test_a_batch_gives_what_its_pictures_give_alone(repository: Path) -> None:
    images = torch.cat([ramp(), ramp(low=0.4, high=0.5).flip(3)])
    together = estimate_disparity(images, 'midas')
    for index in range(2):
        assert torch.equal(together[index:index + 1],
                           estimate_disparity(images[index:index + 1], 'midas'))


@pytest.mark.parametrize('value', [0.0, 0.5])
def test_a_picture_of_nothing_is_far_away(repository: Path, value: float) -> None:
    disparity = estimate_disparity(torch.full((1, 3, 64, 96), value), 'midas')
    assert (disparity < 0.011).all()


def test_the_model_is_loaded_once(repository: Path) -> None:
    for _ in range(3):
        estimate_disparity(ramp(), 'midas')
    estimate_disparity(ramp(), 'midas:DPT_Hybrid')
    assert lines(repository / 'loaded') == ['300.0']


@pytest.mark.parametrize(('source', 'gain', 'seen'), [
    ('midas:DPT_Large', '700.0', '(1, 3, 256, 384)'),
    ('midas:MiDaS_small', '50.0', '(1, 3, 160, 256)')])
def test_the_model_is_chosen_by_name(repository: Path, source: str, gain: str, seen: str) -> None:
    assert source in list_sources()
    estimate_disparity(ramp(), source)
    assert lines(repository / 'loaded') == [gain]
    assert lines(repository / 'seen') == [seen]


def test_unknown_models_are_refused_with_those_that_are_there(repository: Path) -> None:
    with pytest.raises(ValueError, match='midas:DPT_Large, midas:MiDaS, midas:MiDaS_small'):
        estimate_disparity(ramp(), 'midas:DPT_Huge')


def test_a_flight_starts_from_midas(repository: Path) -> None:
    photo = (ramp(64, 96)[0].permute(1, 2, 0) * 255).byte().numpy()
    flight = Flight.from_photo(photo, size=(64, 96), disparity='midas', sky=False, device='cpu')
    assert torch.equal(flight.frame.disparity, estimate_disparity(
        torch.from_numpy(photo / 255.0).float().permute(2, 0, 1)[None], 'midas'))


def test_what_is_in_the_cache_needs_no_network(cache: Path) -> None:
    folder = fill(cache)
    disparity = estimate_disparity(ramp(), 'midas')
    assert disparity[..., 0].mean() < 0.02 < 0.98 < disparity[..., -1].mean()
    assert lines(folder / 'loaded') == ['300.0']


def test_unreachable_midas_names_what_works_offline(cache: Path) -> None:
    with pytest.raises(ValueError, match='name resolution.*horizon or file:PATH') as caught:
        estimate_disparity(ramp(), 'midas')
    assert 'isl-org/MiDaS:v3_1' in str(caught.value)
    assert '\n' not in str(caught.value)
    assert socket.getdefaulttimeout() is None


def test_a_server_that_does_not_answer_is_given_up(
        cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that never accepts; the name of any host leads to it."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        address = (socket.AF_INET, socket.SOCK_STREAM, 0, '', listener.getsockname())
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: [address])
        monkeypatch.setattr(midas, '_TIMEOUT_SECONDS', 0.2)
        for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ValueError, match=r'timed out.*horizon or file:PATH'):
            estimate_disparity(ramp(), 'midas')


@pytest.mark.parametrize(('hubconf', 'reason'), [
    ('import no_such_package', 'no_such_package.*pip install timm'),
    ('raise SystemError("bad luck")', 'SystemError: bad luck'),
    ('def DPT_Hybrid(pretrained=True): return 1', 'Cannot find callable transforms|eval'),
    (None, 'hubconf.py')])
def test_broken_repositories_name_what_works_offline(
        repository: Path, hubconf: str | None, reason: str) -> None:
    if hubconf is None:
        (repository / 'hubconf.py').unlink()
    else:
        (repository / 'hubconf.py').write_text(hubconf)
    with pytest.raises(ValueError, match=f'({reason}).*horizon or file:PATH') as caught:
        estimate_disparity(ramp(), 'midas')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('repository', ['no such folder', 'isl-org/MiDaS', '/no/such/folder'])
def test_wrong_repositories_are_refused(monkeypatch: pytest.MonkeyPatch, repository: str) -> None:
    monkeypatch.setenv('INFINITE_NATURE_MIDAS', repository)
    with pytest.raises(ValueError, match='folder that is there.*offline'):
        estimate_disparity(ramp(), 'midas')


def test_auto_falls_back_to_the_horizon_with_one_warning(cache: Path) -> None:
    image = functional.interpolate(torch.rand(1, 3, 8, 8), (64, 96))
    with pytest.warns(UserWarning, match='falls back from midas to horizon') as caught:
        first = estimate_disparity(image, 'auto')
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        second = estimate_disparity(image, 'auto')
    for disparity in (first, second):
        assert torch.equal(disparity, estimate_disparity(image, 'horizon'))


@pytest.mark.parametrize('missing', ['isl-org_MiDaS_v3_1', 'checkpoints'])
def test_auto_never_asks_the_network(cache: Path, monkeypatch: pytest.MonkeyPatch,
                                     missing: str) -> None:
    fill(cache)
    (cache / missing).rename(cache / 'elsewhere')
    monkeypatch.setattr(torch.hub, 'load', lambda *_, **__: pytest.fail('asked torch.hub'))
    with pytest.warns(UserWarning, match='fly once with the disparity source midas'):
        estimate_disparity(ramp(64, 96))


def test_auto_takes_midas_from_the_cache(cache: Path) -> None:
    fill(cache)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        disparity = estimate_disparity(ramp())
    assert torch.equal(disparity, estimate_disparity(ramp(), 'midas'))
    assert not torch.equal(disparity, estimate_disparity(ramp(), 'horizon'))


def test_auto_takes_a_folder_that_the_user_names(repository: Path) -> None:
    assert torch.equal(estimate_disparity(ramp()), estimate_disparity(ramp(), 'midas'))


def test_auto_falls_back_where_the_cache_is_broken(cache: Path) -> None:
    (fill(cache) / 'hubconf.py').write_text('import no_such_package')
    with pytest.warns(UserWarning, match='no_such_package'):
        disparity = estimate_disparity(ramp(64, 96))
    assert torch.equal(disparity, estimate_disparity(ramp(64, 96), 'horizon'))
