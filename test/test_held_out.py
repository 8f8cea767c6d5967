"""The photographs that nothing is trained on: enough of them, and those that come along."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import PurePosixPath

from infinite_nature_ros.photos import sample_photos

LINES = (resources.files('infinite_nature_training') / 'held_out.txt').read_text().splitlines()
NAMES = [line for line in LINES if line and not line.startswith('#')]


def test_there_are_enough_and_none_twice() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 40
    assert all(name == name.strip() and ' ' not in name for name in NAMES)


def test_the_bundled_photos_are_held_out() -> None:
    credits = next(iter(sample_photos().values())).parent / 'credits.csv'
    with credits.open(newline='') as file:
        sources = [PurePosixPath(row['source'].split()[-1]).name for row in csv.DictReader(file)]
    assert len(sources) == len(sample_photos())
    assert {source.removesuffix('@2x.jpg') for source in sources} <= set(NAMES)
