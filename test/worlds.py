"""Scenes of known shape for the autopilot, and how near a flight comes to what is there.

The tests fly through them, and ``benchmarks/autopilot.py`` does for ``docs/autopilot.md``.
"""

from dataclasses import dataclass
import math

import torch

from infinite_nature_ros import Autopilot, camera, Frame
from infinite_nature_ros.rendering import render

HEIGHT, WIDTH = 40, 64
INTRINSICS = camera.default_intrinsics(HEIGHT, WIDTH)


# Scenes know where rays [N, 3] from a point [3] first meet them and how far points [N, 3] are.

@dataclass
class Ground:
    """Everything below a plane that passes below the origin and may rise along Z."""

    drop: float = 1.0
    gradient: float = 0.0

    def hit(self, origin, rays):
        above = self.drop - origin[1] - self.gradient * origin[2]
        depth = above / (rays[:, 1] + self.gradient * rays[:, 2])
        return torch.where(depth > 0, depth, torch.inf)

    def distance(self, points):
        above = self.drop - points[..., 1] - self.gradient * points[..., 2]
        return above / math.hypot(1, self.gradient)


@dataclass
class Block:
    """Everything between two corners."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def hit(self, origin, rays):
        near, far = ((torch.tensor(corner) - origin) / rays for corner in (self.low, self.high))
        enter, leave = torch.minimum(near, far).amax(-1), torch.maximum(near, far).amin(-1)
        return torch.where((enter > 0) & (enter < leave), enter, torch.inf)

    def distance(self, points):
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        outside = torch.maximum(low - points, points - high)
        return outside.clamp(min=0).norm(dim=-1) + outside.amax(-1).clamp(max=0)


class Scene:
    """Several of them over a sea one unit below the origin."""

    def __init__(self, *parts, drop=1.0):
        self.parts = (Ground(drop), *parts)

    def hit(self, origin, rays):
        return torch.stack([part.hit(origin, rays) for part in self.parts]).amin(0)

    def distance(self, points):
        return torch.stack([part.distance(points) for part in self.parts]).amin(0)


FAR = 200.0
SEA = Scene()
SLOPE = Scene(Ground(1.0, 0.3))
STEEP = Scene(Ground(1.0, 1.0))
WALL = Scene(Block((-FAR, -FAR, 8.0), (FAR, 9.0, 10.0)))
LOW_WALL = Scene(Block((-FAR, -1.0, 8.0), (FAR, 9.0, 10.0)))
CANYON = Scene(Block((-FAR, -9.0, -FAR), (-1.7, 9.0, FAR)),
               Block((1.7, -9.0, -FAR), (FAR, 9.0, FAR)))
BEND = Scene(Block((-FAR, -9.0, -FAR), (-2.0, 9.0, 20.0)),
             Block((2.0, -9.0, -FAR), (FAR, 9.0, 8.0)),
             Block((-FAR, -9.0, 14.0), (FAR, 9.0, FAR)))
DEAD_END = Scene(*CANYON.parts, Block((-FAR, -9.0, 9.0), (FAR, 9.0, FAR)))
GAP = Scene(Block((-FAR, -9.0, 8.0), (-0.4, 9.0, 10.0)),
            Block((1.8, -9.0, 8.0), (FAR, 9.0, 10.0)))


def pit(radius):
    """A square hole with upright walls, which one only leaves upward."""
    far, top, bottom = 9.0, -4.0, 9.0
    return Scene(Block((-far, top, radius), (far, bottom, far)),
                 Block((-far, top, -far), (far, bottom, -radius)),
                 Block((-far, top, -far), (-radius, bottom, far)),
                 Block((radius, top, -far), (far, bottom, far)))


def towers(count=24, seed=0):
    """Towers of all widths around and ahead of the start, too high to fly over."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    while len(parts) < count:
        x, z, half_x, half_z = torch.rand(4, generator=generator).tolist()
        x, z, half_x, half_z = 24 * x - 12, 50 * z - 10, 0.1 + 2 * half_x, 0.1 + 2 * half_z
        if abs(x) > half_x + 1 or abs(z - 1) > half_z + 4:
            parts.append(Block((x - half_x, -9.0, z - half_z), (x + half_x, 9.0, z + half_z)))
    return Scene(*parts)


SCENES = {
    'wall': WALL, 'canyon': CANYON, 'sea': SEA, 'slope': SLOPE, 'gap': GAP,
    'low wall': LOW_WALL, 'bend': BEND, 'dead end': DEAD_END, 'steep': STEEP,
    'towers': towers(seed=1),
}
"""All with a way out that a pilot can find."""


def see(scenes, pose):
    """Frame of the view of each world's scene, its disparity ray-cast."""
    rays = camera.pixel_rays(INTRINSICS, HEIGHT, WIDTH).flatten(2)
    camera_to_world = camera.inverse(pose)
    rays = (camera_to_world[..., :3] @ rays).transpose(1, 2)
    depth = torch.stack([scene.hit(*world) for scene, *world in
                         zip(scenes, camera_to_world[..., 3], rays, strict=True)])
    return as_frame((1 / depth).clamp(0.01, 1).reshape(-1, 1, HEIGHT, WIDTH), pose)


def as_frame(disparity, pose, **fields):
    image = disparity.expand(-1, 3, -1, -1)
    return Frame(image, disparity, torch.ones_like(disparity), pose,
                 INTRINSICS.expand(len(pose), 4), **fields)


@dataclass
class Flown:
    """Poses [N, 3, 4] of one world's flight, and the true distances [N] to its surfaces."""

    poses: torch.Tensor
    distance: torch.Tensor

    @property
    def position(self):
        return camera.position(self.poses)

    @property
    def steps(self):
        return self.position.diff(dim=0).norm(dim=-1)

    @property
    def yaw(self):
        return torch.atan2(self.poses[:, 2, 0], self.poses[:, 2, 2]).rad2deg()

    @property
    def horizon(self):
        """Image rows of the horizon straight ahead."""
        forward = self.poses[:, 2]
        pitch = torch.atan2(forward[:, 1], torch.hypot(forward[:, 0], forward[:, 2]))
        return INTRINSICS[0, 3] - INTRINSICS[0, 1] * pitch.tan()


def fly(*scenes, steps=120, pose=None, pilot=None, **settings):
    """Fly one pilot through a batch of scenes; one ``Flown`` per scene."""
    pilot = pilot or Autopilot(INTRINSICS.expand(len(scenes), 4), **settings)
    pose = camera.identity_pose(len(scenes)) if pose is None else pose
    poses = [pose]
    for _ in range(steps):
        poses.append(pilot.next_pose(see(scenes, poses[-1])))
    flown = torch.stack(poses, dim=1)
    return [Flown(world, scene.distance(camera.position(world)))
            for world, scene in zip(flown, scenes, strict=True)]


def nearest_known_depth(frame, target):
    """Least depth [B] of what a frame shows, as its warp to a target pose leaves it, unclipped."""
    view = render(frame.image, frame.disparity, frame.pose, target, frame.intrinsics,
                  frame.intrinsics)
    mask = view.known.sqrt()
    depth = mask / view.disparity.clamp(min=1e-6)
    return torch.where(view.known > 0.5, depth, torch.inf).amin((1, 2, 3))
