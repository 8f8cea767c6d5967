"""The sky stays the photo's own, whatever the refiner paints, and comes back where it was lost."""

from __future__ import annotations

from collections.abc import Iterator
import math
from pathlib import Path
import sys
from types import ModuleType

from PIL import Image
import pytest
from scenes import sea
import torch

from infinite_nature_ros import Autopilot, camera, Flight, Frame
from infinite_nature_ros.photos import crop_and_resize, sample_photos
from infinite_nature_ros.sky import FAR_DISPARITY, far_matte, keep_far, keep_sky, SkyDome

ROOT = Path(__file__).resolve().parents[1]
SIZE = (96, 160)
PHOTOS = sample_photos()


def check_contract(frame: Frame) -> None:
    for name, value in frame.tensors().items():
        assert torch.isfinite(value).all(), name
    for value, low in ((frame.image, 0), (frame.disparity, 0.01), (frame.known, 0)):
        assert low <= value.min()
        assert value.max() <= 1


def horizon_row(frame: Frame) -> float:
    """Where the level horizon lies in a view, 0 top to 1 bottom."""
    x, y, z = frame.pose[0, 2, :3].tolist()
    pitch = math.atan2(y, math.hypot(x, z))
    return frame.intrinsics[0, 3].item() - frame.intrinsics[0, 1].item() * math.tan(pitch)


class Repainter:
    """A network that paints all of a view anew, the sky too."""

    def begin(self, image: torch.Tensor, disparity: torch.Tensor,
              seed: int | None = None) -> torch.Tensor:
        return torch.zeros(len(image), 1)

    def refine(self, rendered, state):
        image = torch.zeros_like(rendered.image)
        image[:, 0] = 1
        return image, torch.full_like(rendered.disparity, 0.3)

    def to(self, device):
        return self


def test_no_model_can_repaint_the_sky() -> None:
    fly = Flight(*sea(64, 96), model=Repainter(), device='cpu')
    start = fly.frame
    for step in range(1, 6):
        frame = fly.step(camera.pose_at(torch.tensor([[0.0, 0.0, 0.2 * step]]),
                                        start.pose[..., :3]))
    assert (frame.image - start.image)[:, :, :28].abs().max() < 0.02
    assert (frame.disparity[:, :, :28] == 0.01).all()
    assert (frame.image[:, 0, 40:] == 1).all()
    switched_off = Flight(*sea(64, 96), model=Repainter(), device='cpu', sky=False)
    painted = switched_off.step(frame.pose)
    assert painted.sky is None
    assert (painted.image[:, 0] == 1).all()


def test_image_and_disparity_are_blended_alike() -> None:
    matte = torch.linspace(0, 1, 9).reshape(1, 1, 1, 9)
    image, dome = torch.zeros(1, 3, 1, 9), torch.ones(1, 3, 1, 9)
    disparity = torch.full((1, 1, 1, 9), 0.51)
    blended, blended_disparity = keep_sky(image, disparity, matte, dome)
    share = torch.tensor([0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1])
    assert torch.allclose(blended, share.expand(1, 3, 1, 9))
    assert torch.allclose(blended_disparity[0, 0, 0], 0.51 - 0.5 * share)


def test_far_land_over_the_horizon_is_part_of_the_dome() -> None:
    image, disparity, intrinsics = sea(64, 96)
    sky = (disparity <= 0.01).float()
    pose = camera.identity_pose()
    horizon = 32
    for left, depth in ((10, 40.0), (40, 20.0)):  # far and near mountains
        disparity[..., 20:horizon, left:left + 20] = 1 / depth
        sky[..., 20:horizon, left:left + 20] = 0
    assert 1 / 40 < FAR_DISPARITY < 1 / 20
    matte = far_matte(sky, disparity, pose, intrinsics)
    assert (matte[..., 20:horizon, 10:30] == 1).all()
    assert (matte[..., 20:horizon, 40:60] == 0).all()
    assert (matte[..., :20, :] == 1).all()
    # Ground below the horizon stays, however far.
    far_ground = (disparity < FAR_DISPARITY) & (sky == 0)
    assert far_ground[..., horizon + 1:, :].any()
    assert (matte[..., horizon + 1:, :] == 0).all()
    kept, bottomed = keep_far(sky, disparity, pose, intrinsics)
    assert torch.equal(kept, matte)
    assert (bottomed[matte == 1] == camera.MIN_DISPARITY).all()
    assert torch.equal(bottomed[matte == 0], disparity[matte == 0])
    # In a view that looks 10 degrees down the horizon is higher.
    tilted = far_matte(torch.zeros_like(sky), torch.full_like(disparity, 0.02),
                       camera.level_pose(math.radians(10)), intrinsics)
    row = horizon_row(frame_at(camera.level_pose(math.radians(10)), image, intrinsics)) * 64
    assert tilted[0, 0, :, 48].sum().item() == pytest.approx(row, abs=1.5)


def frame_at(pose: torch.Tensor, image: torch.Tensor, intrinsics: torch.Tensor) -> Frame:
    known = torch.ones_like(image[:, :1])
    return Frame(image, 0.3 * known, known, pose, intrinsics)


def turned(angle: float) -> torch.Tensor:
    """Level pose that heads so many radians to the right of the world's Z axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[[cos, 0.0, -sin, 0.0], [0.0, 1.0, 0.0, 0.0], [sin, 0.0, cos, 0.0]]])


def test_a_photos_heading_makes_no_difference() -> None:
    image, disparity, intrinsics = sea(64, 96)
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 12), (64, 96), mode='bilinear')
    sky = (disparity <= 0.01).float()
    pitched = camera.level_pose(0.1)
    headings = [camera.compose(pitched, turned(heading)) for heading in (0.0, 1.0, -2.5)]
    domes = [SkyDome.of(frame_at(pose, image, intrinsics).replace(sky=sky)) for pose in headings]
    for turn in (0.0, 0.3, -0.7, 2.0):
        for nod in (0.1, -0.05):
            views = [dome.view(camera.compose(camera.level_pose(nod), turned(heading + turn)),
                               intrinsics)
                     for dome, heading in zip(domes, (0.0, 1.0, -2.5), strict=True)]
            for view in views[1:]:
                torch.testing.assert_close(view.image, views[0].image, atol=2e-3, rtol=0)
                assert (view.matte - views[0].matte).abs().mean() < 2e-3
    # Nor is there a seam anywhere, least of all behind.
    for turn in (math.pi, 1.5, 0.6):
        around = domes[1].view(camera.compose(pitched, turned(1.0 + turn)), intrinsics).image
        assert around.diff(dim=-1).abs().max() < 0.25
    own = domes[1].view(headings[1], intrinsics)
    certain = torch.nn.functional.max_pool2d(1 - sky, 9, 1, 4) == 0
    torch.testing.assert_close(own.image[certain.expand_as(image)],
                               image[certain.expand_as(image)], atol=2e-3, rtol=0)


def test_a_long_flight_keeps_its_height_and_horizon() -> None:
    fly = Flight.from_photo(PHOTOS['valley'], size=(64, 96), model='inpaint', seed=0, device='cpu',
                            disparity='horizon')
    pilot, start = Autopilot(fly.intrinsics), fly.frame

    def median(frame: Frame) -> float:
        return frame.disparity[frame.sky <= 0.5].median().item()

    for number in range(1, 301):
        frame = fly.step(pilot.next_pose(fly.frame))
        check_contract(frame)
        assert horizon_row(frame) == pytest.approx(horizon_row(start), rel=0.02)
        # At this size the least disparity is that of the ground a row below the horizon: it is
        # a little too near, and shows as the camera comes to it.
        assert median(frame) == pytest.approx(median(start), rel=0.1 if number <= 220 else 0.2)
    assert camera.position(frame.pose).norm() > 20


def test_the_far_stays_while_the_ground_moves() -> None:
    fly = Flight.from_photo(PHOTOS['valley'], size=(64, 96), model='inpaint', seed=0, device='cpu',
                            disparity='horizon')
    start = fly.frame
    for step in range(1, 101):
        frame = fly.step(camera.pose_at(torch.tensor([[0.0, 0.0, 0.2 * step]]),
                                        start.pose[..., :3]))
    both = ((start.sky > 0.99) & (frame.sky > 0.99)).expand_as(frame.image)
    assert both.float().mean() > 0.8 * (start.sky > 0.99).float().mean()
    moved = (frame.image - start.image).abs()
    # Of mountains, that is, not of an even sky alone.
    assert start.image[both].std() > 0.1
    assert moved[both].mean() < 0.01
    ground = (frame.sky < 0.1).expand_as(moved)
    assert moved[ground].mean() > 0.03


@pytest.fixture(scope='module', params=['no_sky', 'only_sky'])
def bare_flight(request: pytest.FixtureRequest) -> tuple[str, list[Frame]]:
    """100 frames into the lower third of a photo, or the upper fifth of another."""
    name, top, bottom = {'no_sky': ('valley', 0.67, 1.0),
                         'only_sky': ('coast', 0.0, 0.2)}[request.param]
    whole = Image.open(PHOTOS[name])
    part = whole.crop((0, round(top * whole.height), whole.width, round(bottom * whole.height)))
    fly = Flight.from_photo(crop_and_resize(part, *SIZE), size=SIZE, seed=0, device='cpu',
                            disparity='horizon')
    pilot = Autopilot(fly.intrinsics)
    frames = [fly.frame]
    for _ in range(100):
        frames.append(fly.step(pilot.next_pose(frames[-1])))
    return request.param, frames


def test_photos_without_sky_and_of_only_sky_fly(bare_flight: tuple[str, list[Frame]]) -> None:
    name, frames = bare_flight
    for frame in frames:
        check_contract(frame)
    expected = {'no_sky': (0.0, 0.05), 'only_sky': (0.98, 1.0)}[name]
    share = (frames[0].sky > 0.5).float().mean()
    assert expected[0] <= share <= expected[1]
    assert camera.position(frames[-1].pose).norm() > 1
    assert frames[-1].image.std() > 0.01
    assert 0.1 < horizon_row(frames[-1]) < 0.9


@pytest.mark.parametrize('pitch', [0.75, -0.75], ids=['lost', 'filled'])
def test_the_autopilot_brings_the_horizon_back(pitch: float) -> None:
    fly = Flight.from_photo(PHOTOS['valley'], size=SIZE, seed=0, device='cpu',
                            disparity='horizon')
    start = fly.frame
    pilot = Autopilot(fly.intrinsics)
    frame = fly.step(pilot.next_pose(start))
    frame = fly.step(camera.compose(camera.level_pose(pitch), frame.pose))
    share = (frame.sky > 0.5).float().mean()
    assert share == 0 if pitch > 0 else share > 0.95
    for _ in range(40):
        frame = fly.step(pilot.next_pose(frame))
        check_contract(frame)
    assert 0.15 < horizon_row(frame) < 0.85
    share = (frame.sky > 0.5).float().mean()
    assert 0.2 < share < 0.8
    is_sky = (frame.sky > 0.99)[0, 0]
    colour, first = (image[0, :, mask].mean(1) for image, mask in
                     ((frame.image, is_sky), (start.image, (start.sky > 0.99)[0, 0])))
    assert (colour - first).abs().max() < 0.1


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import sky_flights
    yield sky_flights
    sys.modules.pop('sky_flights')


def test_the_kept_sky_changes_a_third_as_much_at_most(benchmark: ModuleType) -> None:
    compared = benchmark.compare(PHOTOS['coast'], size=SIZE, frames=40)
    assert compared.warped.view > 1
    assert compared.kept.view <= compared.warped.view / 3
    assert compared.kept.piece_mean <= compared.warped.piece_mean / 3
    assert [len(frames) for frames in (compared.frames_kept, compared.frames_warped)] == [3, 3]
