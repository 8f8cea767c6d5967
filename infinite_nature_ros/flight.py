"""The Flight: render, refine, ground, repeat (paper, section 3), for a batch of worlds at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import math
from pathlib import Path
import time
from typing import Any

import torch
from torch import Tensor

from infinite_nature_ros import camera
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.photos import load_photo
from infinite_nature_ros.refining import create_model, Refiner
from infinite_nature_ros.sky import keep_far, SkyDome
from infinite_nature_ros.skyline import detect_sky, level_with_skyline
from infinite_nature_ros.stepping import Stepper

DEFAULT_SIZE = (160, 256)
"""Height and width of the paper's frames."""

MAX_STEP = (0.25, math.radians(5))
"""Translation (scene units) and rotation (radians) that one render-refine may bridge."""


class Flight:
    """A camera that flies into RGB-D pictures and never reaches their end.

    Every ``step`` renders the last frame from the wanted pose, refines what came out, puts its
    disparity back to scale and keeps the sky: that frame is the next step's ground. A target
    beyond ``max_step`` is reached through sub-steps; only the target's frame is yielded.

    Args:
        image: ``[B, 3, H, W]`` RGB in [0, 1]; H and W divisible by 32.
        disparity: ``[B, 1, H, W]`` inverse depth in [0.01, 1].
        intrinsics: ``[B, 4]`` or ``[1, 4]`` normalised.
        model: a name of ``refining.list_models()``, a weights file, or a ``Refiner``.
        pose: ``[B, 3, 4]`` world to camera of the first frame; ``None``: the identity.
        sky: keep the first frame's sky as a far dome: whether to look for it, or its matte
            ``[B, 1, H, W]`` in [0, 1].
        max_step: largest translation (scene units) and rotation (radians) of a sub-step.
        grounding: hold the disparity's scale still; ``None``: where the model wants it.
        backend: rasteriser, a name of ``rendering.list_backends()``.
        device: a torch device, or 'auto': CUDA where there is one.
        seed: draws what is random about the model; ``None`` draws anew each time.

    Raises:
        ValueError: for wrong shapes, values outside their range, or an unknown model or backend.
    """

    def __init__(self, image: Tensor, disparity: Tensor, intrinsics: Tensor, *,
                 model: str | Path | Refiner = 'default', pose: Tensor | None = None,
                 sky: bool | Tensor = True, max_step: tuple[float, float] = MAX_STEP,
                 grounding: bool | None = None, backend: str = 'warp', device: str = 'auto',
                 seed: int | None = None) -> None:
        self.device = resolve_device(device)
        self.timings: dict[str, float] = {}
        """Seconds that the last step spent in render, refine, ground and sky."""
        self.sub_steps = 0
        """Renders that the last step took; 1 unless the target was far."""
        self._max_step = _check_max_step(max_step)
        self._backend = backend
        self._start = _to(_first_frame(image, disparity, intrinsics, pose, sky), self.device)
        refiner = model if isinstance(model, Refiner) else create_model(model)
        self._refiner = refiner.to(self.device)
        # Networks of the paper's ablation say that they fly without.
        self._grounding = (getattr(refiner, 'grounding', True) if grounding is None
                           else grounding)
        self._stepper = self._make_stepper()
        self.reset(seed=seed)

    @classmethod
    def from_photo(cls, photo: Any, *, model: str | Path | Refiner = 'default',
                   size: tuple[int, int] = DEFAULT_SIZE,
                   disparity: str | Path | Tensor = 'auto', fov: float | None = None,
                   intrinsics: Tensor | None = None, sky: bool = True,
                   pose: Tensor | None = None, device: str = 'auto', seed: int | None = None,
                   **options: Any) -> Flight:
        """Start a flight at a photo, level with its skyline.

        Args:
            photo: a path, bytes, PIL image or array; a list of them makes a batch.
            model: a name of ``refining.list_models()``, a weights file, or a ``Refiner``.
            size: height and width of the frames, divisible by 32; the photo is cropped to fit.
            disparity: a source of ``depth_sources.list_sources()``, a file, or ``[B, 1, H, W]``.
            fov: horizontal field of view in degrees; ``None``: the release's 64.
            intrinsics: ``[B, 4]`` of the frames, normalised; they go before ``fov``.
            sky: keep the photo's sky as a far dome.
            pose: ``[B, 3, 4]`` world to camera of the photo; ``None``: level with its skyline.
            device: a torch device, or 'auto': CUDA where there is one.
            seed: draws what is random about the model.
            options: further arguments of ``Flight``.

        Raises:
            ValueError: for a photo, size, model or source that can't be used, saying what to do.
        """
        photos = photo if isinstance(photo, list | tuple) else [photo]
        image = torch.cat([load_photo(item, size) for item in photos])
        if intrinsics is None:
            intrinsics = camera.default_intrinsics(*size, fov)
        intrinsics = intrinsics.expand(len(image), 4)
        matte = detect_sky(image)
        if pose is None:
            pose = level_with_skyline(image, intrinsics, matte)
        if not isinstance(disparity, Tensor):
            disparity = estimate_disparity(image, disparity, matte)
        return cls(image, disparity, intrinsics, model=model, sky=matte if sky else False,
                   pose=pose, device=device, seed=seed, **options)

    @property
    def frame(self) -> Frame:
        """The view at the present pose."""
        return self._frame

    @property
    def start(self) -> Frame:
        """The first frame, which ``reset`` goes back to."""
        return self._start

    @property
    def intrinsics(self) -> Tensor:
        """``[B, 4]`` of the camera, normalised."""
        return self._start.intrinsics

    def step(self, target_pose: Tensor) -> Frame:
        """Fly to a pose and look.

        Args:
            target_pose: ``[B, 3, 4]`` world to camera.

        Returns:
            The frame there. ``known`` tells what was carried over from the last yielded frame.

        Raises:
            ValueError: for a pose that isn't finite, isn't rigid, or isn't one per world; the
                flight stays where it was.
        """
        target = self._check_target(target_pose)
        start, carried = self._frame.pose, torch.ones_like(self._frame.known)
        self.timings = dict.fromkeys(('render', 'refine', 'ground', 'sky'), 0.0)
        self.sub_steps = self._count_sub_steps(target)
        for index in range(1, self.sub_steps + 1):
            way = camera.interpolate_poses(start, target, index / self.sub_steps)
            self._frame = self._advance(way, carried)
            carried = self._frame.known
        return self._frame

    @torch.no_grad()
    def reset(self, seed: int | None = None, worlds: Sequence[int] | None = None) -> Frame:
        """Go back to the first frame.

        Args:
            seed: draws what is random about the model.
            worlds: numbers of the worlds that start over; ``None``: all.

        Raises:
            ValueError: for a world that isn't there.
        """
        chosen = self._choose(worlds)
        fresh = self._refiner.begin(self._start.image, self._start.disparity, seed)
        if chosen.all():
            self._frame, self._state = self._start, fresh
            return self._frame
        self._state = _merge_state(chosen, fresh, self._state)
        present = self._frame.tensors()
        self._frame = Frame(**{name: _merge(chosen, value, present[name])
                               for name, value in self._start.tensors().items()})
        return self._frame

    def state_dict(self) -> dict[str, Tensor]:
        """Snapshot of everything that changes, and of the start: for undo, resume, look-ahead.

        Returns:
            Tensors by name, copied; ``safetensors`` can store them.
        """
        state = self._state if isinstance(self._state, dict) else {'': self._state}
        groups = {'start': self._start.tensors(), 'frame': self._frame.tensors(), 'state': state}
        return {f'{group}.{name}': value.clone()
                for group, values in groups.items() for name, value in values.items()}

    def load_state_dict(self, snapshot: dict[str, Tensor]) -> None:
        """Go on from a snapshot of this flight or of one with the same model and size.

        Raises:
            ValueError: if the snapshot belongs to another kind of flight.
        """
        own = self.state_dict()
        shapes = {name: tuple(value.shape) for name, value in own.items()}
        given = {name: tuple(value.shape) for name, value in snapshot.items()}
        if shapes != given:
            odd = sorted(set(shapes.items()) ^ set(given.items()))
            raise ValueError(f'the snapshot is not of this kind of flight, it differs in {odd}; '
                             'load it with the same model, size, batch and sky')
        groups: dict[str, dict[str, Tensor]] = {'start': {}, 'frame': {}, 'state': {}}
        for key, value in snapshot.items():
            group, name = key.split('.', 1)
            groups[group][name] = value.to(self.device, copy=True)
        self._start, self._frame = Frame(**groups['start']), Frame(**groups['frame'])
        self._state = groups['state'].get('', groups['state'])
        self._stepper = self._make_stepper()

    @torch.no_grad()
    def _advance(self, pose: Tensor, carried: Tensor) -> Frame:
        """One render, refine, ground and sky; ``carried`` is the known of the last frame."""
        return self._stepper.advance(self._frame, pose, self._state, carried)

    def _make_stepper(self) -> Stepper:
        return Stepper(self._refiner, SkyDome.of(self._start), grounding=self._grounding,
                       backend=self._backend, timed=self._timed)

    def _count_sub_steps(self, target: Tensor) -> int:
        """Sub-steps that keep every world within ``max_step``."""
        way = camera.position(target) - camera.position(self._frame.pose)
        turn = target[..., :3] @ self._frame.pose[..., :3].transpose(-1, -2)
        distance, angle = way.norm(dim=-1).max(), camera.rotation_angle(turn).max()
        # Rounding must not split a step of exactly the allowed length.
        parts = torch.stack([distance / self._max_step[0], angle / self._max_step[1]]) - 1e-3
        return max(1, math.ceil(parts.max().item()))

    def _check_target(self, pose: Tensor) -> Tensor:
        pose = camera.check_pose(pose, 'target_pose').to(self.device, torch.float32)
        if len(pose) != len(self._start.pose):
            raise ValueError(f'target_pose has batch {len(pose)}; this flight has '
                             f'{len(self._start.pose)} worlds: give one pose for each')
        return pose

    def _choose(self, worlds: Sequence[int] | None) -> Tensor:
        """``[B]`` booleans of the worlds that are meant."""
        batch = len(self._start.pose)
        chosen = torch.full((batch,), worlds is None, device=self.device)
        for world in worlds or ():
            if not 0 <= world < batch:
                raise ValueError(f'world {world} is not there; this flight has 0 to {batch - 1}')
            chosen[world] = True
        return chosen

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        self.timings[stage] += time.perf_counter() - start


def resolve_device(device: str) -> torch.device:
    """Turn 'auto' into CUDA where there is one, else the CPU.

    Raises:
        ValueError: for a device that torch doesn't know or that isn't there.
    """
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {device!r} cannot be used ({reason}); '
                         "give 'auto', 'cpu', or 'cuda' with an NVIDIA GPU") from error
    return chosen


def _first_frame(image: Tensor, disparity: Tensor, intrinsics: Tensor, pose: Tensor | None,
                 sky: bool | Tensor) -> Frame:
    """Check what a flight starts from."""
    _check_picture(image, disparity)
    batch = len(image)
    intrinsics = camera.check_intrinsics(intrinsics)
    pose = camera.identity_pose(batch) if pose is None else camera.check_pose(pose)
    for name, value in (('pose', pose), ('intrinsics', intrinsics)):
        if len(value) not in (1, batch):
            raise ValueError(f'{name} has batch {len(value)}; the image has {batch}')
    matte = sky
    if not isinstance(sky, Tensor):
        matte = detect_sky(image) if sky else None
    if matte is not None:
        if matte.shape != disparity.shape:
            raise ValueError(f'sky is {tuple(matte.shape)}; give {tuple(disparity.shape)}')
        _check_range(matte, 'sky', 0.0, 1.0)
        matte, disparity = keep_far(matte, disparity, pose.expand(batch, 3, 4), intrinsics)
    return Frame(image, disparity, torch.ones_like(disparity), pose.expand(batch, 3, 4),
                 intrinsics.expand(batch, 4), matte)


def _check_picture(image: Tensor, disparity: Tensor) -> None:
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f'image is {tuple(image.shape)}; give [B, 3, H, W]')
    height, width = image.shape[2:]
    if height % 32 or width % 32 or not height or not width:
        raise ValueError(f'image is {height} x {width}; height and width must be divisible by 32')
    if disparity.shape != (len(image), 1, height, width):
        raise ValueError(f'disparity is {tuple(disparity.shape)}; '
                         f'give {(len(image), 1, height, width)}')
    _check_range(image, 'image', 0.0, 1.0)
    _check_range(disparity, 'disparity', camera.MIN_DISPARITY, camera.MAX_DISPARITY)


def _check_range(values: Tensor, name: str, low: float, high: float) -> None:
    # Written so that NaN fails it too; a rounding error of float32 passes.
    if not ((values >= low - 1e-6) & (values <= high + 1e-6)).all():
        raise ValueError(f'{name} goes from {values.min():g} to {values.max():g}; '
                         f'scale it to [{low:g}, {high:g}]')


def _check_max_step(max_step: tuple[float, float]) -> tuple[float, float]:
    translation, angle = max_step
    if not (translation > 0 and angle > 0):
        raise ValueError(f'max_step is {max_step}; give a translation in scene units and an angle '
                         'in radians, both above 0')
    return translation, angle


def _to(frame: Frame, device: torch.device) -> Frame:
    return frame.map(lambda value: value.to(device, torch.float32, copy=True))


def _merge(chosen: Tensor, fresh: Tensor, present: Tensor) -> Tensor:
    """Take the chosen worlds from ``fresh`` and the others from ``present``."""
    return torch.where(chosen.reshape(-1, *[1] * (fresh.dim() - 1)), fresh, present)


def _merge_state(chosen: Tensor, fresh: Any, present: Any) -> Any:
    """Merge what the refiner remembers, a tensor or tensors by name."""
    if isinstance(fresh, Tensor):
        return _merge(chosen, fresh, present)
    return {name: _merge(chosen, value, present[name]) for name, value in fresh.items()}
