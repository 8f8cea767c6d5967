"""How much of a picture is still in the next one, by the distance between the two cameras.

The tables of ``docs/acid_bags_dataset.md`` that justify ``camera_speed.DEFAULT_TARGET``: the paper
asks for 90 % (section 4). Without arguments the pilot flies through scenes of known shape, and into
the bundled photos over the ground that the horizon tells; bags are measured as training sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import sys
import tempfile

from environment import describe
import numpy as np
import torch
from torch import Tensor
import tyro

from infinite_nature_ros.camera import (
    default_intrinsics,
    identity_pose,
    inverse,
    MAX_DISPARITY,
    MIN_DISPARITY,
    pixel_rays,
)
from infinite_nature_ros.depth_sources import estimate_disparity
from infinite_nature_ros.photos import load_photo, sample_photos
from infinite_nature_ros.recording import colourise, save_picture
from infinite_nature_ros.rendering import render
from infinite_nature_training.camera_speed import CameraSpeed
from infinite_nature_training.datasets import SequenceDataset, to_float

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))
from worlds import fly, Scene, SCENES  # noqa: E402

HEIGHT, WIDTH = 160, 256
_FRAME_UNITS = 0.05
_STRIDES = (1, 2, 3, 4, 5, 6, 8, 12)
_STARTS = torch.arange(0, 180, 20)
_NEAR = 0.95
_PICTURED = 3


def visible_share(image: Tensor, disparity: Tensor, pose: Tensor, intrinsics: Tensor) -> Tensor:
    """Share of each frame's content that the next frame shows.

    The next frame is rendered back to where the camera was: what it knows there it shows. Pixels
    at edges of the disparity, which the renderer leaves out even where the camera didn't move,
    don't count.

    Args:
        image: ``[N, 3, H, W]``.
        disparity: ``[N, 1, H, W]``.
        pose: ``[N, 3, 4]``.
        intrinsics: ``[N, 4]``.

    Returns:
        ``[N - 1]``.
    """
    def known(source: slice) -> Tensor:
        return render(image[source], disparity[source], pose[source], pose[:-1],
                      intrinsics[source], intrinsics[:-1]).known > 0.5

    countable = known(slice(None, -1))
    return ((known(slice(1, None)) & countable).sum((1, 2, 3)) / countable.sum((1, 2, 3)))


def ray_cast(scene: Scene, pose: Tensor) -> Tensor:
    """Disparity ``[N, 1, H, W]`` of a scene from poses ``[N, 3, 4]``."""
    rays = pixel_rays(default_intrinsics(HEIGHT, WIDTH), HEIGHT, WIDTH).flatten(2)
    to_world = inverse(pose)
    rays = (to_world[:, :, :3] @ rays).transpose(1, 2)
    depth = torch.stack([scene.hit(*view) for view in zip(to_world[:, :, 3], rays, strict=True)])
    return (1 / depth).clamp(MIN_DISPARITY, MAX_DISPARITY).reshape(-1, 1, HEIGHT, WIDTH)


def scene_rows() -> Iterator[tuple[str, float, list[float]]]:
    """Name, near depth, and visible shares by stride, of flights through all scenes."""
    flights = fly(*SCENES.values(), steps=240, speed=_FRAME_UNITS)
    for (name, scene), flown in zip(SCENES.items(), flights, strict=True):
        disparity = ray_cast(scene, flown.poses)
        shares = []
        for stride in _STRIDES:
            pairs = [_pair(disparity, flown.poses, int(start), stride) for start in _STARTS]
            shares.append(torch.cat(pairs).mean().item())
        yield name, near_depth(disparity[_STARTS]), shares


def _pair(disparity: Tensor, poses: Tensor, start: int, stride: int) -> Tensor:
    two = slice(start, start + stride + 1, stride)
    image = disparity[two].expand(-1, 3, -1, -1)
    intrinsics = default_intrinsics(HEIGHT, WIDTH).expand(2, 4)
    return visible_share(image, disparity[two], poses[two], intrinsics)


def photo_rows() -> Iterator[tuple[str, float, list[float]]]:
    """Name, near depth, and visible shares by stride, of straight ways into the photos."""
    intrinsics, start = default_intrinsics(HEIGHT, WIDTH), identity_pose()
    for name, path in sample_photos().items():
        photo = load_photo(path, (HEIGHT, WIDTH))
        disparity = estimate_disparity(photo, 'horizon')
        shares = []
        for stride in _STRIDES:
            target = start.clone()
            target[:, 2, 3] = -_FRAME_UNITS * stride
            view = render(photo, disparity, start, target, intrinsics, intrinsics)
            shares.append(visible_share(
                torch.cat([photo, view.image]), torch.cat([disparity, view.disparity]),
                torch.cat([start, target]), intrinsics.expand(2, 4)).item())
        yield f'photo: {name}', near_depth(disparity), shares


def near_depth(disparity: Tensor) -> float:
    """Depth that 5 % of the pixels of ``[N, 1, H, W]`` are nearer than, mean over the frames."""
    return (1 / disparity.flatten(1).quantile(_NEAR, dim=1)).mean().item()


def print_scenes() -> None:
    """Print the table of scenes and photos."""
    rows = [*scene_rows(), *photo_rows()]
    print(f'| scene | near depth | {" | ".join(f"{_FRAME_UNITS * k:.2f}" for k in _STRIDES)} |')
    print('|---' * (2 + len(_STRIDES)) + '|')
    for name, near, shares in rows:
        print(f'| {name} | {near:.1f} | {" | ".join(f"{100 * share:.0f}" for share in shares)} |')
    mean = torch.tensor([shares for _, _, shares in rows]).mean(0)
    print(f'| mean | | {" | ".join(f"{100 * share:.1f}" for share in mean)} |')


def print_bags(bags: list[Path], sequences: int) -> None:
    """Print the table of bags, at the default speed and as many sequences of each."""
    print('| clip | start frames | strides | units a step | visible |\n|---|---|---|---|---|')
    for bag in bags:
        with tempfile.TemporaryDirectory() as cache:
            dataset = SequenceDataset(bag, cache=cache, augmentation=None, size=(HEIGHT, WIDTH),
                                      stride=CameraSpeed(), strict=True)
            samples = [to_float(dataset[index])
                       for index in range(min(sequences, len(dataset)))]
        strides = sorted({int(sample['frames'].diff()[0]) for sample in samples})
        moved = torch.stack([inverse(sample['pose'])[..., 3].diff(dim=0).norm(dim=1)
                             for sample in samples])
        share = torch.stack([visible_share(*(sample[name] for name in (
            'image', 'disparity', 'pose', 'intrinsics'))) for sample in samples])
        print(f'| {bag.name} | {len(dataset)} | {strides[0]} to {strides[-1]} | '
              f'{moved.mean():.2f} | {100 * share.mean():.1f} % |')


def draw_sequences(bags: list[Path], path: Path) -> None:
    """Write a picture of a few sequences, augmented: a row of images and one of disparity each."""
    with tempfile.TemporaryDirectory() as cache:
        dataset = SequenceDataset(bags, cache=cache, size=(HEIGHT, WIDTH), strict=True)
        rows = [row for index in range(_PICTURED) for row in (
            [image.permute(1, 2, 0).numpy() for image in dataset[index]['image']],
            [colourise(disparity.float().numpy())
             for disparity in dataset[index]['disparity'][:, 0]])]
    save_picture(path, np.concatenate([np.concatenate(row, axis=1) for row in rows]))


def main(bags: tuple[Path, ...] = (), sequences: int = 40, picture: Path | None = None) -> None:
    """Print the tables, under machine, commit and versions.

    Args:
        bags: ACID bags to measure instead of the scenes of known shape.
        sequences: how many sequences of each bag.
        picture: file for a picture of some sequences of the bags.
    """
    print(f'{describe()}\n')
    if bags:
        print_bags(list(bags), sequences)
        if picture is not None:
            draw_sequences(list(bags), picture)
    else:
        print_scenes()


if __name__ == '__main__':
    tyro.cli(main)
