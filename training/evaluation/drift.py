"""Drift: figures of single frames that need no reference, and when a flight has collapsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from infinite_nature_ros.frame import Frame

# Rec. 601, as 8-bit pictures are made grey.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# Percentiles that stand for the ends of the disparity's range.
_LOW, _HIGH = 5, 95

# Spectrum: from this frequency (cycles a pixel), below which the window bends it, to the finest,
# in as many bands of equal ratio; the window fades out over this share of the height.
_LEAST_FREQUENCY, _BANDS = 0.05, 10
_MARGIN = 0.1

# Colours of one channel for a histogram.
_LEVELS = 8

# Less land than this share of the picture tells nothing about it.
_LEAST_LAND = 0.02


@dataclass(frozen=True)
class Limits:
    """How far a flight may come from its start before it counts as collapsed.

    Attributes:
        disparity: least and greatest median disparity, as ratios to the start's.
        sharpness: likewise of the sharpness.
        slope: greatest difference of the power spectrum's slope, either way.
        sky: least and greatest share of the picture; counts where the start is within it.
        window: frames whose medians are compared: one odd frame is no collapse.
    """

    disparity: tuple[float, float] = (0.5, 2.0)
    sharpness: tuple[float, float] = (0.5, 2.0)
    slope: float = 0.3
    sky: tuple[float, float] = (0.05, 0.6)
    window: int = 10


def frame_figures(frame: Frame, start: Frame) -> dict[str, float]:
    """Figures of one frame; ratios to the start's are for whoever reads them.

    Land is what isn't far (``frame.sky`` at most a half); all counts as land where a frame keeps
    no sky, or shows hardly anything else.

    Args:
        frame: of one world.
        start: first frame of its flight, of the same size.

    Returns:
        sharpness: variance of the Laplacian of luma, over land.
        spectrum_slope: exponent by which the power of luma changes with frequency, over land,
            from 0.05 to 0.5 cycles a pixel; about -2 to -3 in photographs.
        histogram_distance: Hellinger distance of the colours to the start's, 0 to 1; sky counts.
        disparity_median, disparity_low, disparity_high: half, 5 % and 95 % of the land have less
            disparity than that.
        hole_fraction: share of the picture that was invented, 1 - known.

    Raises:
        ValueError: for frames of several worlds.
    """
    if len(frame.image) != 1 or len(start.image) != 1:
        raise ValueError(f'frames have {len(frame.image)} and {len(start.image)} worlds; give '
                         'those of one world')
    land, luma = _land(frame), _pixels(frame) @ _LUMA
    low, median, high = np.percentile(frame.disparity[0, 0].cpu().numpy()[land],
                                      (_LOW, 50, _HIGH))
    return {
        'sharpness': _sharpness(luma, land),
        'spectrum_slope': _spectrum_slope(luma, land),
        'histogram_distance': _histogram_distance(_pixels(frame), _pixels(start)),
        'disparity_median': float(median),
        'disparity_low': float(low),
        'disparity_high': float(high),
        'hole_fraction': 1 - frame.known.mean().item(),
    }


def collapse(figures: Mapping[str, np.ndarray], limits: Limits | None = None) -> list[str]:
    """Tell why a flight counts as collapsed.

    The start's figures are compared with medians over windows of frames, wherever they lie.

    Args:
        figures: those of ``frame_figures`` by name, each ``[F + 1]``, the start's in front.
        limits: how much is allowed; the usual ones by default.

    Returns:
        Reasons in words, each with the worst figure and the window's middle frame where it first
        went wrong; none if the flight held.

    Raises:
        ValueError: for a flight without a frame after its start.
    """
    limits = limits or Limits()
    length = len(figures['sharpness'])
    if length < 2:
        raise ValueError('the flight has no frame after its start; fly at least one')
    bars = {
        'disparity_median': ('median disparity {:.2f} of the start', limits.disparity),
        'sharpness': ('sharpness {:.2f} of the start', limits.sharpness),
        'spectrum_slope': ('power-spectrum slope {:+.2f} from the start',
                           (-limits.slope, limits.slope)),
        'sky_fraction': ('sky {:.2f} of the picture', limits.sky),
    }
    reasons = []
    for name, (words, (least, greatest)) in bars.items():
        values = _since_start(name, np.asarray(figures[name], dtype=float), limits)
        if values is None:
            continue
        window = min(limits.window, length - 1)
        medians = np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)
        # Not a number is out, too.
        out = ~((medians >= least) & (medians <= greatest))
        if out.any():
            first = int(out.argmax())
            worst = medians[out][np.nanargmax(_beyond(medians[out], least, greatest))]
            reasons.append(f'{words.format(worst)}, allowed {least:g} to {greatest:g}, from frame '
                           f'{1 + first + window // 2} on')
    return reasons


def _since_start(name: str, values: np.ndarray, limits: Limits) -> np.ndarray | None:
    """Figures of the frames after the start as they are judged; ``None`` if they aren't."""
    if name == 'spectrum_slope':
        return values[1:] - values[0]
    if name == 'sky_fraction':
        return values[1:] if limits.sky[0] <= values[0] <= limits.sky[1] else None
    return values[1:] / max(values[0], 1e-12)


def _beyond(values: np.ndarray, least: float, greatest: float) -> np.ndarray:
    """How far outside values are; what is no number is furthest."""
    return np.nan_to_num(np.maximum(least - values, values - greatest), nan=np.inf)


def _pixels(frame: Frame) -> np.ndarray:
    """``[H, W, 3]`` RGB in [0, 1]."""
    return np.ascontiguousarray(frame.image[0].permute(1, 2, 0).cpu().numpy(), dtype=np.float32)


def _land(frame: Frame) -> np.ndarray:
    """``[H, W]`` bool."""
    everywhere = np.ones(frame.disparity.shape[-2:], dtype=bool)
    if frame.sky is None:
        return everywhere
    land = frame.sky[0, 0].cpu().numpy() <= 0.5
    return land if land.mean() >= _LEAST_LAND else everywhere


def _sharpness(luma: np.ndarray, land: np.ndarray) -> float:
    """Variance of the Laplacian where it sees land alone, so that the skyline doesn't count."""
    inside = cv2.erode(land.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    laplacian = cv2.Laplacian(luma, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)
    return float(laplacian[inside if inside.any() else land].var())


def _spectrum_slope(luma: np.ndarray, land: np.ndarray) -> float:
    """Slope of log power against log frequency, over the land.

    Land has any shape: a window that fades out towards its edge, and the picture's, takes the
    place of a rectangle's.
    """
    window = _fading(land)
    power = np.abs(np.fft.fft2((luma - np.average(luma, weights=window)) * window)) ** 2
    height, width = luma.shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    edges = np.geomspace(_LEAST_FREQUENCY, 0.5, _BANDS + 1)
    band = np.digitize(frequency.ravel(), edges) - 1
    inside = (band >= 0) & (band < _BANDS)
    count = np.bincount(band[inside], minlength=_BANDS)
    means = np.bincount(band[inside], power.ravel()[inside], minlength=_BANDS) / count
    middles = np.sqrt(edges[1:] * edges[:-1])
    # An even picture has no power at all; its slope is 0.
    return float(np.polyfit(np.log(middles), np.log(means + 1e-12), 1)[0])


def _fading(land: np.ndarray) -> np.ndarray:
    """``[H, W]`` 1 well inside the land, falling to 0 at its edge and the picture's."""
    framed = np.pad(land.astype(np.uint8), 1)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.sin(np.pi / 2 * np.minimum(distance / (_MARGIN * land.shape[0]), 1)) ** 2


def _histogram_distance(pixels: np.ndarray, others: np.ndarray) -> float:
    """Hellinger distance of the colours of two pictures."""
    one, other = (cv2.calcHist([(picture.clip(0, 1) * 255).round().astype(np.uint8)], [0, 1, 2],
                               None, [_LEVELS] * 3, [0, 256] * 3) for picture in (pixels, others))
    return float(cv2.compareHist(one, other, cv2.HISTCMP_BHATTACHARYYA))
