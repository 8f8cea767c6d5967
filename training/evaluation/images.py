"""Comparisons with ground truth, picture by picture: MSE, PSNR, SSIM and LPIPS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

Distance = Callable[[Tensor, Tensor], Tensor]
"""Compares ``[N, 3, H, W]`` with as many: ``[N]``."""


@torch.no_grad()
def compare(made: Tensor, real: Tensor, lpips: Distance,
            mask: Tensor | None = None) -> dict[str, Tensor]:
    """Compare pictures with what they should be.

    SSIM has the usual Gaussian window of 11 pixels and takes the colours one by one. With a mask,
    MSE, PSNR and SSIM are means over its pixels, and LPIPS is shown the real picture elsewhere.

    Args:
        made: ``[N, 3, H, W]`` RGB in [0, 1].
        real: as many, of the same size.
        lpips: the perceptual distance.
        mask: ``[N, 1, H, W]``, 1 where pixels count, 0 where they don't.

    Returns:
        'mse', 'psnr' (dB; infinite for the same picture), 'ssim' and 'lpips', each ``[N]``.

    Raises:
        ValueError: for pictures of another shape, or a mask without a pixel.
    """
    if made.shape != real.shape or made.dim() != 4 or made.shape[1] != 3:
        raise ValueError(f'pictures are {tuple(made.shape)} and {tuple(real.shape)}; give both as '
                         '[N, 3, H, W]')
    if mask is None:
        mask = torch.ones_like(made[:, :1])
    if mask.shape != made[:, :1].shape or not mask.flatten(1).any(1).all():
        raise ValueError(f'mask is {tuple(mask.shape)}; give one [N, 1, H, W] of the size of '
                         'the pictures, with some pixels that count in each')
    # Where pixels don't count both pictures are the same.
    made = made * mask + real * (1 - mask)
    mse = _mean((made - real).square(), mask)
    _, similarity = structural_similarity_index_measure(
        made, real, data_range=1.0, reduction='none', return_full_image=True)
    return {'mse': mse, 'psnr': -10 * mse.log10(), 'ssim': _mean(similarity, mask),
            'lpips': lpips(made, real)}


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """``[N]`` means of ``[N, 3, H, W]`` over a mask."""
    return (values * mask).mean((1, 2, 3)) / mask.mean((1, 2, 3))
