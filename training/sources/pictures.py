"""Pictures of clips: kept as they are where they can be, else cropped to what the poses are of."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from infinite_nature_training.bags import ClipError
from infinite_nature_training.bags.clip import decode_picture

_JPEG = b'\xff\xd8'

# Sides are whole pixels, of scaled videos even ones.
_ROUNDING = 2

# Bars are black (16 in video range) up to coding noise, but not quite where the picture begins.
_BLACK, _SOFT_EDGE = 40, 2
_BLACK_SHARE = 0.98


def read_picture(path: Path) -> bytes | np.ndarray:
    """Read an image file: a JPEG's bytes as they are, others as uint8 ``[H, W, 3]`` RGB.

    Raises:
        ClipError: if it is damaged or no picture.
        OSError: if it can't be read.
    """
    data = path.read_bytes()
    try:
        # OpenCV fills what a file that was cut short lacks with grey.
        with PIL.Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ClipError(f'picture {path.name} is damaged ({error}); get it again') from error
    return data if data.startswith(_JPEG) else decode_picture(data)


class Cropper:
    """Brings the pictures of a clip to the part that its intrinsics are of, and to a size.

    ACID's authors cropped letterboxes and then normalised the intrinsics, so what one downloads
    has bars that the intrinsics know nothing of (paper, supplement 1.1). Pixels being square, they
    tell the aspect ratio of what was left.
    """

    def __init__(self, aspect: float, height: int = 0) -> None:
        """Expect pictures of a clip.

        Args:
            aspect: width over height of the part without bars.
            height: of what comes out, in pixels; 0: as it is.
        """
        self._aspect = aspect
        self._height = height
        self._size: tuple[int, int] | None = None

    def fit(self, picture: bytes | np.ndarray) -> bytes | np.ndarray:
        """Crop and resize a picture, or return it as it is if nothing is to be done.

        Raises:
            ClipError: if what must go isn't black, or the picture isn't as large as the first one.
        """
        size = _size(picture)
        if self._size not in (None, size):
            raise ClipError(f'pictures are {_say(self._size)} and {_say(size)}; '
                            'give one size in a clip')
        self._size = size
        top, left = self._bars(*size)
        if not (top or left) and self._height in (0, size[0]):
            return picture
        image = decode_picture(picture) if isinstance(picture, bytes) else picture
        self._check_bars(image, top, left)
        image = image[top:size[0] - top, left:size[1] - left]
        if self._height:
            width = round(self._height * image.shape[1] / image.shape[0])
            image = cv2.resize(image, (width, self._height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(image)

    def _bars(self, height: int, width: int) -> tuple[int, int]:
        """Height of the bars above and below, and width of those left and right."""
        down, across = height - width / self._aspect, width - height * self._aspect
        if min(abs(down), abs(across)) <= _ROUNDING:
            return 0, 0
        return max(round(down / 2), 0), max(round(across / 2), 0)

    def _check_bars(self, image: np.ndarray, top: int, left: int) -> None:
        bright = image.max(2) > _BLACK
        for lines, count in ((bright, top), (bright.T, left)):
            sure = max(count - _SOFT_EDGE, 0)
            bars = np.concatenate([lines[:sure], lines[len(lines) - sure:]])
            if bars.size and bars.mean() > 1 - _BLACK_SHARE:
                raise ClipError(
                    f'pictures are {_say(image.shape)}, but their poses are of ones '
                    f'{self._aspect:.4g} times as wide as high, and what is beyond is no black '
                    'bar; give frames that are not cropped or squeezed')


def _size(picture: bytes | np.ndarray) -> tuple[int, int]:
    if isinstance(picture, np.ndarray):
        return picture.shape[:2]
    width, height = PIL.Image.open(io.BytesIO(picture)).size
    return height, width


def _say(size: tuple[int, ...]) -> str:
    return f'{size[1]} x {size[0]}'
