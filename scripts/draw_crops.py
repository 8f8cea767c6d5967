"""Draws the list of crops that flights are compared with: training/evaluation/crops.csv.

usage: .venv/bin/python scripts/draw_crops.py photos [--count N] [--seed N] [--out FILE]

Of every photograph that nothing is ever trained on: those of training/held_out.txt, and those of
training/photos.csv that are neither public domain nor CC0. Same photos, count and seed: same list.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from PIL import Image

from infinite_nature_training.evaluation.crops import CROPS, draw_crops, write_crops
from infinite_nature_training.sources.photos import choose, HELD_OUT_PHOTOS, read_credits

LIST = Path(__file__).resolve().parents[1] / 'training' / 'photos.csv'

TRAINED_ON = ('public-domain', 'CC0')
"""Licences of the photographs that models which ship learn from."""


def photos_to_cut(listed: Path = LIST) -> list[str]:
    """Names of the listed photographs that nothing is ever trained on."""
    credits = read_credits(listed)
    learnable = choose((name for name, credit in credits.items() if credit.licence in TRAINED_ON),
                       leave_out=[HELD_OUT_PHOTOS])
    return sorted(set(credits) - set(learnable))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', type=Path, help='photographs of scripts/fetch_photos.py')
    parser.add_argument('--count', type=int, default=40, help='crops of each photograph')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=CROPS, metavar='FILE')
    options = parser.parse_args(arguments)
    photos = []
    try:
        for name in photos_to_cut():
            with Image.open(options.folder / name) as picture:
                photos.append((name, *picture.size))
    except OSError as error:
        print(f'draw_crops: {error}; get the photographs with scripts/fetch_photos.py',
              file=sys.stderr)
        return 1
    crops = draw_crops(photos, options.count, options.seed)
    write_crops(crops, options.out)
    print(f'{len(crops)} crops of {len(photos)} photographs in {options.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
