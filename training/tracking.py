"""Tracking: what a run looks like while it goes on, in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from infinite_nature_ros.pixels import from_pixels
from infinite_nature_ros.recording import colourise
from infinite_nature_training.rollout import Unrolled
from infinite_nature_training.validation import Errors


class Tracker:
    """TensorBoard log of one run.

    Args:
        folder: of the log.
        step: where the run goes on; what an interrupted run wrote behind it is dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def scalars(self, step: int, losses: Mapping[str, float]) -> None:
        """Write weighted losses by name."""
        for name, value in losses.items():
            self._writer.add_scalar(f'loss/{name}', value, step)

    def errors(self, step: int, errors: Errors) -> None:
        """Write validation errors by step of the roll-out."""
        for kind, values in vars(errors).items():
            for number, value in enumerate(values, start=1):
                self._writer.add_scalar(f'validation/{kind}_{number}', value, step)
        self._writer.flush()

    def pictures(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """Write pictures ``[3, h, w]`` in [0, 1] by name."""
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step)
        self._writer.flush()

    def close(self) -> None:
        """Write all that is left."""
        self._writer.close()


def picture_of(batch: Mapping[str, Tensor], unrolled: Unrolled) -> Tensor:
    """``[3, T * H, 5 * W]``: a row a step, of what the first sequence of a batch became.

    From left to right: rendered, refined, target, refined disparity, target disparity.
    """
    rows = []
    for step, (frame, rendered) in enumerate(
            zip(unrolled.frames[0], unrolled.rendered[0], strict=True), start=unrolled.lead + 1):
        target = batch['disparity'][0, step]
        rows.append(torch.cat([
            rendered[:3], frame[:3], batch['image'][0, step],
            disparity_colours(frame[3]), disparity_colours(target[0])], dim=2))
    return torch.cat(rows, dim=1).detach().float().cpu().clamp(0, 1)


def disparity_colours(disparity: Tensor) -> Tensor:
    """``[3, H, W]`` picture of a disparity ``[H, W]``."""
    colours = from_pixels(colourise(disparity.detach().float().cpu().numpy()))
    return colours.to(disparity.device)
