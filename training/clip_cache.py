"""Clip cache: decoded, cropped and resized clips as memory-mapped arrays, made at first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path
import shutil
from typing import BinaryIO
import uuid
import warnings

import numpy as np
from PIL import Image
import torch
from torch import Tensor

from infinite_nature_ros.camera import MAX_DISPARITY, MIN_DISPARITY
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.photos import crop_and_resize, crop_intrinsics
from infinite_nature_ros.pixels import from_pixels
from infinite_nature_training.bags.clip import ClipError, ClipFrame, ClipInfo
from infinite_nature_training.bags.reader import Clip

# Part of every key: raise it when entries are made differently.
_FORMAT = 1

# uint8 [N, H, W, 3]; float16 [N, 1, H, W], within 0.05 % of what the bag says; float64 [N, 16],
# pose and intrinsics.
_IMAGE, _DISPARITY, _CAMERAS, _FACTS = 'image.npy', 'disparity.npy', 'cameras.npy', 'clip.json'


@dataclass(frozen=True)
class CachedClip:
    """A clip in the cache; its arrays are opened for every read, so that it costs no handle.

    Attributes:
        folder: where its arrays are.
        info: the clip's facts.
        frames: how many it has.
    """

    folder: Path
    info: ClipInfo
    frames: int

    def cameras(self) -> tuple[Tensor, Tensor]:
        """Poses ``[N, 3, 4]`` and intrinsics ``[N, 4]``, float64."""
        return _split_cameras(np.load(self.folder / _CAMERAS))

    def read(self, frames: slice) -> dict[str, Tensor]:
        """Read some frames.

        Returns:
            image, uint8 ``[N, 3, H, W]``, the channels of a pixel side by side; disparity,
            float16 ``[N, 1, H, W]`` in [0.01, 1]; pose, float64 ``[N, 3, 4]``; intrinsics,
            float64 ``[N, 4]``.
        """
        image, disparity, cameras = (
            np.array(np.load(self.folder / name, mmap_mode='r')[frames])
            for name in (_IMAGE, _DISPARITY, _CAMERAS))
        pose, intrinsics = _split_cameras(cameras)
        return {'image': torch.from_numpy(image).permute(0, 3, 1, 2),
                'disparity': torch.from_numpy(disparity), 'pose': pose, 'intrinsics': intrinsics}


class ClipCache:
    """Folder of decoded clips, safe for any number of processes that fill and read it at once.

    An entry is keyed by the bag's path, the sizes and times of its files, and by what it was made
    for: a changed bag gets a new entry. Entries never change, and are there whole or not at all.
    """

    def __init__(self, folder: str | Path | None, size: tuple[int, int],
                 disparity: str | None) -> None:
        """Open the cache.

        Args:
            folder: where it is; ``None`` is ``infinite_nature_ros/sequences`` in the user's cache
                folder (``XDG_CACHE_HOME``).
            size: height and width that frames are brought to.
            disparity: source of disparity where a clip has none, as ``estimate_disparity`` takes
                it; ``None`` refuses such a clip.

        Raises:
            ValueError: if the folder can't be made.
        """
        self._folder = (Path(folder) if folder is not None else _default_folder()).absolute()
        self._size = size
        self._disparity = disparity
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f'the clip cache {str(self._folder)!r} cannot be made ({error}); '
                             'give another folder') from error

    def find(self, bag: Path) -> CachedClip | None:
        """Return the clip of a bag; ``None`` if it isn't there, or damaged, which is a warning."""
        folder = self._entry_folder(bag)
        existed = folder.exists()  # Asked first: another process may be just making it.
        found = _open(folder, self._size)
        if found is None and existed:
            warnings.warn(f'cached clip {folder} is damaged and is made again', stacklevel=2)
        return found

    def add(self, bag: Path, clip: Clip) -> CachedClip:
        """Put a clip into the cache; where another process was faster, its entry is taken.

        Args:
            bag: where the clip was read from.
            clip: the clip.

        Raises:
            ClipError: if a frame can't be decoded, or has no disparity and no source is given.
            OSError: if the cache can't be written.
        """
        folder = self._entry_folder(bag)
        unfinished = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}.partial')
        unfinished.mkdir()
        try:
            self._write(unfinished, clip)
            if folder.exists() and _open(folder, self._size) is None:
                shutil.rmtree(folder, ignore_errors=True)
            try:
                unfinished.rename(folder)
            except OSError:  # Another process was faster: what it made is the same.
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return CachedClip(folder, clip.info, len(clip.frames))

    def _entry_folder(self, bag: Path) -> Path:
        files = sorted(bag.rglob('*')) if bag.is_dir() else [bag]
        stats = [(str(file.relative_to(bag.parent)), file.stat()) for file in files]
        key = [_FORMAT, str(bag.resolve()), *self._size, self._disparity,
               [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return self._folder / f'{bag.name}-{digest[:16]}'

    def _write(self, folder: Path, clip: Clip) -> None:
        count, (height, width) = len(clip.frames), self._size
        cameras = []
        # Plain writing and not a writable map, where a full disk kills the process.
        with open(folder / _IMAGE, 'wb') as images, open(folder / _DISPARITY, 'wb') as disparities:
            _write_header(images, np.uint8, (count, height, width, 3))
            _write_header(disparities, np.float16, (count, 1, height, width))
            for frame in clip.frames:
                try:
                    image, disparity, camera = self._convert(frame)
                except ClipError as error:
                    raise ClipError(f'{clip.path}: {error}') from error
                images.write(image.tobytes())
                disparities.write(disparity.tobytes())
                cameras.append(camera)
        np.save(folder / _CAMERAS, np.stack(cameras))
        (folder / _FACTS).write_text(clip.info.to_json(), encoding='utf-8')

    def _convert(self, frame: ClipFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uint8 ``[H, W, 3]``, float16 ``[1, H, W]``, and float64 ``[16]`` of the cameras."""
        picture = frame.check().image()
        image = np.array(crop_and_resize(Image.fromarray(picture), *self._size))
        if frame.disparity is not None:
            disparity = np.asarray(crop_and_resize(Image.fromarray(frame.disparity), *self._size))
        elif self._disparity is not None:
            photo = from_pixels(image)[None]
            disparity = estimate_disparity(photo, self._disparity)[0, 0].numpy()
        else:
            raise ClipError(f"the frame at {frame.stamp} ns has no disparity; give a source "
                            "of it, as disparity='horizon'")
        intrinsics = crop_intrinsics(frame.intrinsics, picture.shape[:2], self._size)
        return (image, disparity.clip(MIN_DISPARITY, MAX_DISPARITY).astype(np.float16)[None],
                torch.cat([frame.pose.flatten(), intrinsics.flatten()]).numpy())


def _open(folder: Path, size: tuple[int, int]) -> CachedClip | None:
    """Clip of an entry, or ``None`` if it isn't whole."""
    try:
        info = ClipInfo.from_json((folder / _FACTS).read_text(encoding='utf-8'))
        # Mapping a file that was cut short fails.
        image, disparity, cameras = (np.load(folder / name, mmap_mode='r')
                                     for name in (_IMAGE, _DISPARITY, _CAMERAS))
    except (OSError, ValueError, EOFError):
        return None
    count = len(cameras)
    whole = (image.shape, disparity.shape, cameras.shape) == (
        (count, *size, 3), (count, 1, *size), (count, 16))
    return CachedClip(folder, info, count) if whole else None


def _write_header(file: BinaryIO, kind: type, shape: Sequence[int]) -> None:
    """Begin a ``.npy`` file whose rows follow one by one."""
    np.lib.format.write_array_header_1_0(file, {
        'descr': np.lib.format.dtype_to_descr(np.dtype(kind)), 'fortran_order': False,
        'shape': tuple(shape)})


def _split_cameras(cameras: np.ndarray) -> tuple[Tensor, Tensor]:
    pose, intrinsics = torch.from_numpy(cameras).split([12, 4], dim=1)
    return pose.unflatten(1, (3, 4)), intrinsics


def _default_folder() -> Path:
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'infinite_nature_ros' / 'sequences'
