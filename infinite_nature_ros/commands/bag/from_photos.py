"""``infinite-nature bag from-photos``: each photo of a folder becomes a bag of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def from_photos(
    photos: Annotated[Path, tyro.conf.Positional],
    out: Path = Path('bags'),
    credits: Path | None = None,
    licence: str = '',
    licences: tuple[str, ...] = (),
    match: tuple[str, ...] = ('*',),
    names: Path | None = None,
    leave_out: Path | None = None,
    split: Literal['', 'train', 'validation', 'test'] = '',
    height: int = 320,
    width: int = 512,
    fov: float = 0.0,
    disparity: str = 'auto',
    scene_scale: float = 1.0,
    workers: int = 0,
    ray: bool = False,
    strict: bool = False,
) -> int:
    """Make a bag of one frame of each photo: level with its skyline, with estimated disparity.

    Photos that can't be used are skipped; skipped.csv says why. Start it again and it goes on
    where it stopped.

    Example: infinite-nature bag from-photos photos --credits photos/photos.csv --out bags

    Example: infinite-nature bag from-photos photos --match 'sea*' 'beach*' --leave-out test.txt

    Args:
        photos: folder of photos, with any folders in it.
        out: folder for the bags.
        credits: CSV file with the columns file (or path), licence, and author and comment if
            there are any.
        licence: licence of photos that the CSV file says nothing about, an SPDX name or words.
        licences: take photos of these licences only; by default, of all.
        match: take photos whose path below the folder fits one of these patterns.
        names: text file with a path below the folder, or a bare name as beach3, in each line: take
            those photos only.
        leave_out: text file of the same kind: leave those photos out; bare names of others are
            passed over.
        split: split of all bags.
        height: height to bring the photos to, a multiple of 32; they are cropped, not squeezed.
        width: width to bring them to, a multiple of 32.
        fov: their horizontal field of view in degrees; 0 is the default, 64.
        disparity: source of their disparity, a registered name.
        scene_scale: metres per scene unit.
        workers: photos at once; 0 is one a core.
        ray: convert under Ray: in the cluster of RAY_ADDRESS, or a local one.
        strict: end at the first photo that can't be used.

    Returns:
        Exit code: 0, or 1 if no photo became a bag.

    Raises:
        ValueError: if an argument can't be used, or with strict, a photo.
        OSError: if a file can't be read or written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_training.conversion import convert
    from infinite_nature_training.sources.photos import (
        choose,
        find_photos,
        make_bag,
        photo_jobs,
        PhotoOptions,
        read_credits,
    )

    found = find_photos(photos.expanduser().absolute())
    chosen = choose(found, match=match, only=names,
                    leave_out=[] if leave_out is None else [leave_out])
    known = {} if credits is None else read_credits(credits)
    jobs = photo_jobs({name: found[name] for name in chosen}, known,
                      PhotoOptions(height, width, fov, disparity, split, scene_scale),
                      licence=licence, licences=licences)
    return convert(make_bag, jobs, out.expanduser(), workers=workers, ray=ray,
                   strict=strict).exit_code
