"""Pictures go to 8 bits and back."""

from __future__ import annotations

import numpy as np
import torch

from infinite_nature_ros.pixels import from_pixels, to_pixels


def test_values_are_rounded_and_clipped() -> None:
    image = torch.tensor([-0.1, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.2]).expand(1, 3, 1, 6)
    assert to_pixels(image)[0, 0, :, 1].tolist() == [0, 0, 0, 1, 255, 255]


def test_batches_and_single_pictures_keep_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    images = from_pixels(pixels)
    assert images.shape == (2, 3, 4, 5)
    assert images[1, 2, 3, 4] == torch.tensor(pixels[1, 3, 4, 2] / np.float32(255))
    assert torch.equal(from_pixels(pixels[1]), images[1])
    back = to_pixels(images.requires_grad_())
    assert (back == pixels).all()
    assert back.flags['C_CONTIGUOUS']
