"""Makes the README's picture: a flight into the default photo, RGB above disparity.

usage: .venv/bin/python scripts/readme_picture.py
"""

from pathlib import Path

import numpy as np

from infinite_nature_ros import Autopilot, Flight, Frame
from infinite_nature_ros.photos import default_photo
from infinite_nature_ros.pixels import to_pixels
from infinite_nature_ros.recording import colourise, contact_sheet, save_picture

STEPS, EVERY = 105, 15
TARGET = Path(__file__).parent.parent / 'docs' / 'images' / 'flight.jpg'


def picture_of(frame: Frame) -> np.ndarray:
    """RGB above disparity, uint8 ``[2 H, W, 3]``."""
    return np.vstack([to_pixels(frame.image)[0], colourise(frame.disparity[0, 0].numpy())])


def main() -> None:
    """Fly and save."""
    flight = Flight.from_photo(default_photo(), seed=0, device='cpu')
    pilot = Autopilot(flight.intrinsics)
    pictures = {0: picture_of(flight.frame)}
    for step in range(1, STEPS + 1):
        frame = flight.step(pilot.next_pose(flight.frame))
        if step % EVERY == 0:
            pictures[step] = picture_of(frame)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    save_picture(TARGET, contact_sheet(pictures))


if __name__ == '__main__':
    main()
