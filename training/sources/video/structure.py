"""Structure from motion: poses of all frames of a shot and points in space, through COLMAP.

A drone that flies straight ahead is nearly degenerate: incremental mapping, which adds one picture
after the other, bends such a path into a hook. Global mapping (GLOMAP: Pan et al., 2024) solves
for all keyframes at once and keeps it straight; points on the sky are left out, and the focal
length is held. The frames between the keyframes are placed by the points that they see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
import tempfile

import numpy as np
import torch

from infinite_nature_ros import camera
from infinite_nature_training.bags import ClipError
from infinite_nature_training.sources.video.tracking import Tracks

try:
    import pycolmap
except ImportError as error:
    raise ImportError('bags from videos need pycolmap, which is not installed; '
                      "say: pip install 'infinite_nature_ros[data]'") from error

# Each keyframe is matched with so many after it, where they share so many points.
_REACH, _FEWEST_MATCHES = 10, 25

# Reprojection errors over the picture's width: beyond the first a point doesn't take part in the
# placing of a frame, beyond the second it doesn't count as seen there.
_PLACING_ERROR, _SEEN_ERROR = 0.007, 0.0024

# A focal length is believed instead of the assumed one if it brings the sum of squared errors down
# to this share: in a straight flight any does about equally well. No lens is this far off.
_CLEARLY_BETTER, _MOST_WRONG = 0.8, 3.0

_CAMERA, _RIG, _SEED = 1, 1, 0


@dataclass(frozen=True, eq=False)
class Structure:
    """What structure from motion found in a shot.

    Attributes:
        first: number of the first frame (within the shot) that has a pose.
        poses: float64 ``[F, 3, 4]`` world to camera, of consecutive frames.
        points: list of F arrays ``[K, 3]``: points seen in each frame, camera axes, z > 0.
        fits: ``[F]`` share of the points followed into a frame that are seen where its pose says.
        intrinsics: ``[4]`` fx, fy, cx, cy, normalised.
        error: median reprojection error over all frames, in widths of the picture.
    """

    first: int
    poses: np.ndarray
    points: list[np.ndarray]
    fits: np.ndarray
    intrinsics: np.ndarray
    error: float

    def __len__(self) -> int:
        """Return the number of frames with a pose."""
        return len(self.poses)

    def scaled(self, scale: float) -> Structure:
        """Return the same in other units of length, so many to one of its own."""
        poses = self.poses.copy()
        poses[..., 3] *= scale
        return replace(self, poses=poses, points=[seen * scale for seen in self.points])


def recover_structure(tracks: Tracks, keyframes: list[int], intrinsics: np.ndarray,
                      fixed_focal: bool) -> Structure:
    """Find the camera's path and the points.

    Args:
        tracks: points followed through the shot.
        keyframes: frames to solve for, ascending.
        intrinsics: ``[4]`` fx, fy, cx, cy, normalised.
        fixed_focal: keep the focal length; else another one is taken where the points ask for it.

    Raises:
        ClipError: if no structure comes out.
    """
    mapped = _map(tracks, keyframes, intrinsics)
    if not fixed_focal:
        better = _better_focal(mapped, intrinsics[0])
        if better is not None:
            intrinsics = intrinsics * (better, better, 1, 1)
            mapped = _map(tracks, keyframes, intrinsics)
    return _place_all_frames(mapped, tracks, intrinsics)


@dataclass(frozen=True, eq=False)
class _Mapped:
    """Keyframes with a pose, ascending, and points in the world by their number."""

    model: pycolmap.Reconstruction
    frames: list[int]
    poses: np.ndarray
    points: dict[int, np.ndarray]


def _map(tracks: Tracks, keyframes: list[int], intrinsics: np.ndarray) -> _Mapped:
    """Global mapping of the keyframes."""
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    pycolmap.set_random_seed(_SEED)
    with tempfile.TemporaryDirectory() as name:
        database = Path(name) / 'tracks.db'
        _write_database(database, tracks, keyframes, intrinsics)
        pycolmap.geometric_verification(
            database, verifier_options=pycolmap.GeometricVerifierOptions(num_threads=1))
        options = pycolmap.GlobalPipelineOptions(random_seed=_SEED, num_threads=1)
        options.mapper.bundle_adjustment.refine_focal_length = False
        models = pycolmap.global_mapping(database, name, name, options)
    if not models:
        raise ClipError('structure from motion found no path that fits the points')
    model = max(models.values(), key=lambda model: model.num_reg_images())
    images = sorted((image for image in model.images.values() if image.has_pose),
                    key=lambda image: image.image_id)
    if len(images) < 2 or not model.num_points3D():
        raise ClipError('structure from motion placed fewer than two keyframes')
    frames = [keyframes[image.image_id - 1] for image in images]
    points = {}
    for frame, image in zip(frames, images, strict=True):
        for number, seen in zip(tracks.of(frame)[0].tolist(), image.points2D, strict=True):
            if seen.has_point3D():
                points[number] = model.points3D[seen.point3D_id].xyz.copy()
    poses = np.stack([image.cam_from_world().matrix() for image in images])
    return _Mapped(model, frames, poses, points)


def _write_database(path: Path, tracks: Tracks, keyframes: list[int],
                    intrinsics: np.ndarray) -> None:
    """Write the tracks as the keypoints and matches that COLMAP starts from."""
    database = pycolmap.Database.open(path)
    lens = _colmap_camera(tracks.size, intrinsics)
    database.write_camera(lens, use_camera_id=True)
    rig = pycolmap.Rig(rig_id=_RIG)
    rig.add_ref_sensor(lens.sensor_id)
    database.write_rig(rig, use_rig_id=True)
    for number, frame in enumerate(keyframes, start=1):
        image = pycolmap.Image(name=f'{frame:06d}', camera_id=_CAMERA, image_id=number)
        database.write_image(image, use_image_id=True)
        rig_frame = pycolmap.Frame(frame_id=number, rig_id=_RIG)
        rig_frame.add_data_id(image.data_id)
        database.write_frame(rig_frame, use_frame_id=True)
        database.write_keypoints(number, tracks.of(frame)[1].astype(np.float32))
    for first, frame in enumerate(keyframes):
        for second in range(first + 1, min(first + 1 + _REACH, len(keyframes))):
            a, b = tracks.of(frame)[0], tracks.of(keyframes[second])[0]
            _, *places = np.intersect1d(a, b, assume_unique=True, return_indices=True)
            if len(places[0]) >= _FEWEST_MATCHES:
                database.write_matches(first + 1, second + 1,
                                       np.stack(places, axis=1).astype(np.uint32))
    database.close()


def _colmap_camera(size: tuple[int, int], intrinsics: np.ndarray) -> pycolmap.Camera:
    height, width = size
    # Pixels are square.
    fx, _, cx, cy = intrinsics
    lens = pycolmap.Camera(model='SIMPLE_PINHOLE', width=width, height=height, camera_id=_CAMERA,
                           params=(fx * width, cx * width, cy * height))
    lens.has_prior_focal_length = True
    return lens


def _better_focal(mapped: _Mapped, focal: float) -> float | None:
    """Factor to the focal length that explains the points clearly better, if there is one."""
    model = mapped.model
    options = pycolmap.BundleAdjustmentOptions(refine_focal_length=True, print_summary=False)
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.reg_image_ids():
        config.add_image(image)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    solved = pycolmap.create_default_bundle_adjuster(options, config, model).solve().ceres_summary
    if solved.final_cost > _CLEARLY_BETTER * solved.initial_cost:
        return None
    lens = model.camera(_CAMERA)
    factor = float(lens.params[0] / lens.width / focal)
    return factor if 1 / _MOST_WRONG < factor < _MOST_WRONG else None


def _place_all_frames(mapped: _Mapped, tracks: Tracks, intrinsics: np.ndarray) -> Structure:
    """Pose of each frame from the first placed keyframe to the last, by the points it sees."""
    lens = _colmap_camera(tracks.size, intrinsics)
    options = pycolmap.AbsolutePoseRefinementOptions(print_summary=False)
    poses, points, fits, errors = [], [], [], []
    for frame in range(mapped.frames[0], mapped.frames[-1] + 1):
        numbers, xy = tracks.of(frame)
        known = np.array([number in mapped.points for number in numbers.tolist()], bool)
        space = np.array([mapped.points[number] for number in numbers[known].tolist()])
        space, xy = space.reshape(-1, 3), xy[known]
        pose = _between(mapped, frame)
        _, error = _project(space, xy, pose, lens)
        placing = error < _PLACING_ERROR * lens.width
        if placing.any():
            refined = pycolmap.refine_absolute_pose(
                pycolmap.Rigid3d(pose), xy, space, placing, lens, options)
            pose = refined['cam_from_world'].matrix() if refined is not None else pose
        seen_from, error = _project(space, xy, pose, lens)
        poses.append(pose)
        seen = error < _SEEN_ERROR * lens.width
        points.append(seen_from[seen])
        fits.append(seen.mean() if len(seen) else 0.0)
        errors.append(error)
    return Structure(mapped.frames[0], np.stack(poses), points, np.array(fits), intrinsics,
                     float(np.median(np.concatenate(errors))) / lens.width)


def _between(mapped: _Mapped, frame: int) -> np.ndarray:
    """``[3, 4]`` pose on the way between the two keyframes around a frame."""
    after = min(np.searchsorted(mapped.frames, frame, side='right'), len(mapped.frames) - 1)
    start, end = mapped.frames[after - 1], mapped.frames[after]
    pair = torch.from_numpy(mapped.poses[after - 1:after + 1])
    way = camera.interpolate_poses(pair[:1], pair[1:], (frame - start) / (end - start))
    return way[0].numpy()


def _project(space: np.ndarray, xy: np.ndarray, pose: np.ndarray,
             lens: pycolmap.Camera) -> tuple[np.ndarray, np.ndarray]:
    """Points ``[K, 3]`` in camera axes, and how far ``[K]`` (pixels) from ``xy`` they are seen."""
    local = space @ pose[:, :3].T + pose[:, 3]
    in_front = local[:, 2] > 1e-6
    depth = np.where(in_front, local[:, 2], 1)
    focal, *centre = lens.params
    image = local[:, :2] / depth[:, None] * focal + centre
    error = np.linalg.norm(image - xy, axis=1)
    return local, np.where(in_front, error, np.inf)
