"""Photo dataset: still photos become training samples, random crops of them, the same anywhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any
import warnings

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from infinite_nature_ros.camera import default_intrinsics
from infinite_nature_ros.depth_sources import list_sources
from infinite_nature_ros.photos import (
    check_photo,
    check_size,
    crop_shares,
    read_photo,
    resize_part,
)
from infinite_nature_ros.skyline import detect_sky, level_with_skyline
from infinite_nature_training.augmentation import Augmentation
from infinite_nature_training.bags.clip import ClipError, ClipInfo
from infinite_nature_training.datasets import DEFAULT_AUGMENTATION
from infinite_nature_training.epochs import EpochDataset
from infinite_nature_training.sources.photos import (
    bare_name,
    choose,
    credited,
    disparity_under,
    find_photos,
    read_credits,
)

# How often a crop with too much sky is drawn anew before the one with the least is taken.
_DRAWS = 10

# Masks are of whole photos: their aspect ratio may be off by rounding, no further.
_ASPECT_TOLERANCE = 0.02

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a crop as shares of the photo."""


@dataclass(frozen=True)
class _Photo:
    """A photo of the dataset, and the file of its sky mask if it has one."""

    name: str
    path: Path
    mask: Path | None
    info: ClipInfo


class PhotoDataset(EpochDataset):
    """Random crops of photos, each with disparity, sky mask and a level pose.

    An epoch has one crop of every photo. A crop has the wanted aspect ratio; its height is a share
    of the largest such crop's, drawn log-uniformly, its place is drawn evenly. A crop with more
    sky than ``most_sky`` is drawn anew, up to ten times; then that with the least sky is taken.
    Each crop counts as a photo of its own, with the default intrinsics and the skyline that it
    shows itself.
    """

    def __init__(self, folders: str | Path | Iterable[str | Path], *,
                 size: tuple[int, int] = (160, 256), credits: str | Path | None = None,
                 licence: str = '', licences: Collection[str] = (),
                 masks: str | Path | None = None, match: Sequence[str] = ('*',),
                 names: str | Path | None = None,
                 leave_out: Sequence[str | Path] | str | Path = (),
                 disparity: str = 'auto',
                 crop: tuple[float, float] = (0.5, 1.0), most_sky: float = 0.8,
                 augmentation: Augmentation | None = DEFAULT_AUGMENTATION, shuffle: bool = True,
                 seed: int = 0, strict: bool = False, fine: int = 0) -> None:
        """Find the photos; none is decoded before it is drawn.

        Args:
            folders: folders of photos, with any folders in them.
            size: height and width of the samples.
            credits: CSV file with the columns file (or path), licence, author and comment.
            licence: of photos that it says nothing about.
            licences: only photos of these licences; none for all.
            masks: folder of PNG files, 255 in the sky, of any size, named as the photos. A photo
                without one, and all where there is no folder, gets the sky that ``detect_sky``
                finds in the crop.
            match: only photos whose relative path fits one of these patterns.
            names: text file of photos (``sources.photos.choose``): others are out.
            leave_out: text file of photos that are out, or several; ``HELD_OUT_PHOTOS`` among them
                for training.
            disparity: source of disparity, a registered name.
            crop: least and greatest height of a crop, as a share of the largest.
            most_sky: share of sky above which a crop is drawn anew.
            augmentation: what is changed at random; ``None`` for nothing.
            shuffle: an order of its own for each epoch; otherwise always that of the names.
            seed: draws order, crops and augmentation; at least 0.
            fine: also give each crop so many times as large, where it is 2 or more; photos should
                have the pixels for it.
            strict: raise for a file that is no photo, instead of skipping it with a warning.

        Raises:
            ClipError: if no photo can be used, or, with ``strict``, the first that can't.
            ValueError: for a setting that can't be.
            OSError: if a file of names or credits can't be read.
        """
        super().__init__(shuffle=shuffle, seed=seed)
        self._size = check_size(size)
        self._crop = _check_crop(crop)
        if fine < 0:
            raise ValueError(f'fine is {fine}; give 0, or 2 or more')
        self._fine = fine
        if not 0 < most_sky <= 1:
            raise ValueError(f'most_sky is {most_sky}; give a share above 0, up to 1')
        self._most_sky = most_sky
        self._disparity = _check_source(disparity)
        self._augmentation = augmentation
        self._intrinsics = default_intrinsics(*size)
        self.skipped: dict[str, str] = {}
        """Why photos aren't used, by path."""
        credits, masks, names = (
            None if path is None else Path(path).expanduser().absolute()
            for path in (credits, masks, names))
        lists = [leave_out] if isinstance(leave_out, str | Path) else leave_out
        found = _find(folders, masks)
        chosen = {name: found[name]
                  for name in choose(
                      found, match=match, only=names,
                      leave_out=[Path(file).expanduser() for file in lists])}
        allowed = credited(chosen, {} if credits is None else read_credits(credits),
                           licence=licence, licences=licences)
        self._photos = [
            _Photo(name, chosen[name], _find_mask(masks, name), credit.info(name, self._method()))
            for name, credit in allowed.items() if self._is_photo(chosen[name], strict)]
        if not self._photos:
            raise ClipError(f'no photo can be used; {next(iter(self.skipped.values()))}')
        if masks is not None and not any(photo.mask for photo in self._photos):
            raise ClipError(f'{masks} has a mask of none of the photos; name them as the photos, '
                            f'{bare_name(self._photos[0].name)}.png')

    @property
    def infos(self) -> dict[str, ClipInfo]:
        """Facts of the photos that are used, by path."""
        return {str(photo.path): photo.info for photo in self._photos}

    def __len__(self) -> int:
        """Count the photos: the samples of an epoch."""
        return len(self._photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample of a global index, 0 or more; those from ``len(self)`` on are of later epochs.

        Returns:
            A dictionary: image, uint8 ``[1, 3, H, W]`` RGB; disparity, float16 ``[1, 1, H, W]`` in
            [0.01, 1], bottomed in the sky; sky, uint8 ``[1, 1, H, W]``, 255 in the sky; pose,
            float64 ``[1, 3, 4]`` world to camera, at the origin, level with the skyline of the
            crop; intrinsics, float64 ``[1, 4]``; photo, its name; index, the given one; with
            ``fine``, that too, uint8 ``[1, 3, fine * H, fine * W]``.
            :func:`datasets.to_float` makes of it, or of a batch, what the core takes.

        Raises:
            IndexError: for a negative index.
            ValueError: if the photo or its mask turns out to be damaged.
        """
        number, random = self._draw(index)
        photo = self._photos[number]
        image, sky, fine = self._crop_of(photo, random)
        real_image, real_sky = image / 255, sky / 255
        sample = {
            'image': image, 'sky': sky,
            'disparity': disparity_under(real_sky, real_image, self._disparity).half(),
            'pose': level_with_skyline(real_image, self._intrinsics, real_sky).double(),
            'intrinsics': self._intrinsics.double()}
        if fine is not None:
            sample['fine'] = fine
        if self._augmentation is not None:
            sample = self._augmentation.apply(sample, random)
        return sample | {'image': sample['image'].contiguous(), 'photo': photo.name,
                         'index': index}

    def _crop_of(self, photo: _Photo,
                 random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image and sky of a crop, uint8 ``[1, C, H, W]``, and the image again if it's wanted."""
        picture = read_photo(photo.path)
        mask = None if photo.mask is None else _read_mask(photo.mask, picture)
        crops: list[tuple[float, Tensor, Tensor, Box]] = []
        for _ in range(_DRAWS):
            box = self._draw_box(picture, random)
            image = self._cut(picture, box)
            sky = _detected(image) if mask is None else self._cut(mask, box)
            share = float(sky.float().mean()) / 255
            crops.append((share, image, sky, box))
            if share <= self._most_sky:
                break
        _, image, sky, box = min(crops, key=lambda crop: crop[0])
        return image, sky, self._cut(picture, box, self._fine) if self._fine > 1 else None

    def _draw_box(self, picture: PIL.Image.Image, random: np.random.Generator) -> Box:
        share = math.exp(random.uniform(*map(math.log, self._crop)))
        width, height = (share * whole for whole in crop_shares(
            picture.height, picture.width, *self._size))
        left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
        return left, top, left + width, top + height

    def _cut(self, picture: PIL.Image.Image, box: Box, times: int = 1) -> Tensor:
        """Crop at the size of the samples, or so many times that, uint8 ``[1, C, H, W]``."""
        size = tuple(times * side for side in self._size)
        pixels = tuple(min(share * side, side)
                       for share, side in zip(box, 2 * picture.size, strict=True))
        values = np.asarray(resize_part(picture, pixels, *size))
        return torch.from_numpy(values.reshape(1, *size, -1).copy()).permute(0, 3, 1, 2)

    def _is_photo(self, path: Path, strict: bool) -> bool:
        try:
            check_photo(path)
        except ValueError as error:
            if strict:
                raise ClipError(str(error)) from error
            warnings.warn(f'skipped: {error}', stacklevel=4)
            self.skipped[str(path)] = str(error)
        return str(path) not in self.skipped

    def _method(self) -> str:
        """How samples are made, in words."""
        least, greatest = self._crop
        return (f'crops of {least:g} to {greatest:g} of the height that fits; pose level with the '
                f'skyline; disparity of {self._disparity}')


def _find(folders: str | Path | Iterable[str | Path], masks: Path | None) -> dict[str, Path]:
    """Photos by relative path; masks that lie among them are none."""
    found: dict[str, Path] = {}
    for folder in [folders] if isinstance(folders, str | Path) else folders:
        for name, path in find_photos(Path(folder).expanduser().absolute()).items():
            if masks is not None and masks in path.parents:
                continue
            if name in found:
                raise ClipError(f'{found[name]} and {path} have one name; give the folder above '
                                'both, so that credits and lists can tell them apart')
            found[name] = path
    return found


def _find_mask(masks: Path | None, name: str) -> Path | None:
    """Mask of a photo, as in its folder or by its bare name."""
    if masks is None:
        return None
    places = (masks / Path(name).with_suffix('.png'), masks / f'{bare_name(name)}.png')
    return next((place for place in places if place.is_file()), None)


def _read_mask(path: Path, picture: PIL.Image.Image) -> PIL.Image.Image:
    """8-bit grey mask of a photo, at its own size."""
    try:
        with PIL.Image.open(path) as file:
            mask = file.convert('L')
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f'mask {path} is damaged ({error}); make it anew') from error
    aspect = picture.width / picture.height
    if abs(mask.width / mask.height / aspect - 1) > _ASPECT_TOLERANCE:
        raise ValueError(f'mask {path} is {mask.width} x {mask.height}, its photo {picture.width} '
                         f'x {picture.height}; give a mask of the whole photo')
    return mask


def _detected(image: Tensor) -> Tensor:
    """Sky found in uint8 ``[1, 3, H, W]``, uint8 ``[1, 1, H, W]``."""
    return (detect_sky(image / 255) * 255).round().byte()


def _check_crop(crop: tuple[float, float]) -> tuple[float, float]:
    least, greatest = crop
    if not 0 < least <= greatest <= 1:
        raise ValueError(f'crop is {crop}; give the least and the greatest share, above 0 and up '
                         'to 1')
    return least, greatest


def _check_source(disparity: str) -> str:
    """Refuse a source here, not in some worker: a file holds the disparity of one photo alone."""
    sources = ['auto', *(name for name in list_sources() if name != 'file')]
    if disparity not in sources:
        raise ValueError(f'disparity is {disparity!r}; choose from {", ".join(sources)}')
    return disparity
