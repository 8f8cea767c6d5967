"""CoastWorld: a procedural coast to look at from anywhere, with exact disparity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
import warp as wp

from infinite_nature_ros import camera
from infinite_nature_ros.frame import Frame
from infinite_nature_ros.rendering.warp_backend import on_device
from infinite_nature_training.sources.coast.clipmap import Clipmap
from infinite_nature_training.sources.coast.film import develop
from infinite_nature_training.sources.coast.place import draw_place
from infinite_nature_training.sources.coast.rays import approach, BLOCK, Shot
from infinite_nature_training.sources.coast.start import find_start
from infinite_nature_training.sources.coast.tracing import expose, smooth

# Size of the picture that the exposure is measured on.
_METER = (40, 64)

# Exposure for a view of average brightness in the light of day.
_LIGHT_EXPOSURE = 0.8

# Slopes that rays reckon with: small rocks are steeper, and too low to be leapt over.
_SLOPES = (1.2, 2.6)

# How bright the first view becomes on average, 0 to 1.
_BRIGHTNESS = (0.42, 0.53)


class CoastWorld:
    """One coast: land, sea, sky and light of a seed; the same on every machine of a kind.

    The world is still: the same pose shows the same picture, so that it is ground truth for view
    synthesis. ``time`` sets the waves and clouds going. It has no borders.

    Attributes:
        kind: what was drawn, as ``'fjord, noon'``.
        start: ``[1, 3, 4]`` pose with a view of land and sea, to begin a flight at.

    Args:
        seed: 0 or more; which coast.
        device: ``'cpu'`` or a CUDA device of torch; the tensors of a ``Frame`` are there.

    Raises:
        ValueError: if the seed is negative.
    """

    def __init__(self, seed: int, device: str | torch.device = 'cpu') -> None:
        place, self.kind = draw_place(seed)
        self.device = torch.device(device)
        self._map = Clipmap(place, str(self.device))
        intrinsics = camera.default_intrinsics(*_METER)
        brightness = np.random.default_rng((seed, 2)).uniform(*_BRIGHTNESS)
        with on_device(self.device):
            overview = self._map.overview()
            self._steepness = min(max(overview.steepness, _SLOPES[0]), _SLOPES[1])
            self.start = find_start(overview, intrinsics, seed)
            self._map.set_exposure(self._measure(intrinsics, brightness))

    @torch.no_grad()
    def look(self, pose: Tensor, intrinsics: Tensor, height: int, width: int,
             time: float = 0.0) -> Frame:
        """See the coast from B cameras, one after the other.

        Args:
            pose: ``[B, 3, 4]`` world to camera, scene units.
            intrinsics: ``[B, 4]`` or ``[1, 4]``, normalised.
            height: rows of the picture.
            width: columns of the picture.
            time: seconds that waves and clouds have moved on.

        Returns:
            ``Frame``; its disparity is 1 / depth of the pixel's centre, in [0.01, 1].

        Raises:
            ValueError: for poses, intrinsics or a size that can't be.
        """
        camera.check_pose(pose)
        intrinsics = camera.check_intrinsics(intrinsics).expand(len(pose), 4)
        if min(height, width) < 2:
            raise ValueError(f'the size is {height} x {width}; give at least 2 x 2')
        image = torch.empty(len(pose), 3, height, width, device=self.device)
        disparity = torch.empty(len(pose), 1, height, width, device=self.device)
        sky = torch.empty_like(disparity)
        with on_device(self.device):
            for number in range(len(pose)):
                shot = self._shot(pose[number], intrinsics[number], time)
                light, depth = self._expose(shot, height, width)
                self._develop(shot, light, depth, image[number], disparity[number, 0],
                              sky[number, 0])
        return Frame(image, disparity, torch.ones_like(disparity), pose.to(self.device),
                     intrinsics.to(self.device), sky)

    def render(self, pose: Tensor, intrinsics: Tensor, height: int, width: int,
               time: float = 0.0) -> tuple[Tensor, Tensor]:
        """Picture ``[B, 3, H, W]`` and disparity ``[B, 1, H, W]`` of :meth:`look`."""
        frame = self.look(pose, intrinsics, height, width, time)
        return frame.image, frame.disparity

    def clearance(self, pose: Tensor) -> Tensor:
        """``[B]`` height of cameras over the land or sea straight below, scene units.

        Args:
            pose: ``[B, 3, 4]`` world to camera.
        """
        places = camera.position(camera.check_pose(pose)).cpu()
        with on_device(self.device):
            ground = torch.tensor([self._map.ground(x, z) for x, _, z in places.tolist()])
        return -places[:, 1] - ground.clamp(min=0)

    def _shot(self, pose: Tensor, intrinsics: Tensor, time: float) -> Shot:
        """Camera as the kernels take it; the grids move along."""
        x, y, z = camera.position(pose[None].double())[0].tolist()
        self._map.move(x, z)
        upward = torch.tensor([[1.0], [-1.0], [1.0]], dtype=torch.float64)
        to_world = pose[:, :3].T.double().cpu() * upward
        fx, fy, cx, cy = intrinsics.tolist()
        shot = Shot()
        shot.eye = wp.vec3(x, -y, z)
        shot.to_world = wp.mat33(*to_world.flatten().tolist())
        shot.focal, shot.centre = wp.vec2(fx, fy), wp.vec2(cx, cy)
        shot.ceiling, shot.upright = self._map.ceiling, self._map.upright
        shot.steepness, shot.time = self._steepness, time
        return shot

    def _expose(self, shot: Shot, height: int, width: int) -> tuple[wp.array, wp.array]:
        """Light and depth of all pixels."""
        grids, device = self._map, self._map.device
        centre, light = (wp.empty((height, width), dtype=wp.vec3, device=device)
                         for _ in range(2))
        depth = wp.empty((height, width), dtype=float, device=device)
        starts = wp.empty((-(-height // BLOCK), -(-width // BLOCK)), dtype=float, device=device)
        wp.launch(approach, dim=starts.shape, device=device,
                  inputs=[shot, wp.vec2(width, height), grids.heights, starts])
        land = [grids.place, grids.heights, grids.covers, starts]
        wp.launch(expose, dim=(height, width), device=device,
                  inputs=[shot, *land, centre, depth])
        wp.launch(smooth, dim=(height, width), device=device,
                  inputs=[shot, *land, centre, depth, light])
        return light, depth

    def _develop(self, shot: Shot, light: wp.array, depth: wp.array, image: Tensor,
                 disparity: Tensor, sky: Tensor) -> None:
        """Write picture, disparity and sky of light and depth."""
        wp.launch(develop, dim=light.shape, device=self._map.device, inputs=[
            shot, self._map.place, light, depth, wp.from_torch(image), wp.from_torch(disparity),
            wp.from_torch(sky)])

    def _measure(self, intrinsics: Tensor, brightness: float) -> float:
        """Exposure half way from the light's own to what makes the first view that bright.

        All the way, snow would darken the sky above it, and a wood burn it out.
        """
        shot = self._shot(self.start[0], intrinsics[0], 0.0)
        light, depth = self._expose(shot, *_METER)
        image = torch.empty(3, *_METER, device=self.device)
        disparity, sky = torch.empty(2, *_METER, device=self.device)
        low, high = 0.2, 4.0
        for _ in range(8):
            exposure = (low * high) ** 0.5
            self._map.set_exposure(exposure)
            self._develop(shot, light, depth, image, disparity, sky)
            low, high = (low, exposure) if image.mean() > brightness else (exposure, high)
        return (exposure * _LIGHT_EXPOSURE) ** 0.5
