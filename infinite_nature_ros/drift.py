"""Drift: how far a flight's frames have come from its first one, in figures without a reference."""

from __future__ import annotations

from torch import Tensor

from infinite_nature_ros.frame import Frame


def drift(first: Frame, last: Frame) -> tuple[float, float]:
    """Sharpness and median disparity of a frame, as ratios to the first one.

    Blur brings the sharpness down, ringing up; a disparity that shrinks or grows has lost its
    scale. Sky doesn't count for the disparity, where there is anything else.

    Args:
        first: first frame of a flight.
        last: a later one.
    """
    return (_sharpness(last.image) / max(_sharpness(first.image), 1e-6),
            _median_disparity(last) / _median_disparity(first))


def _sharpness(image: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return (image.diff(dim=-1).abs().mean() + image.diff(dim=-2).abs().mean()).item()


def _median_disparity(frame: Frame) -> float:
    """Median of what isn't sky; of everything where there is nothing else."""
    if frame.sky is None or (frame.sky > 0.5).all():
        return frame.disparity.median().item()
    return frame.disparity[frame.sky <= 0.5].median().item()
