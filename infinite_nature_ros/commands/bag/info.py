"""``infinite-nature bag info``: what is in bags, in words and pictures."""

from __future__ import annotations

import os
from pathlib import Path
import sys
from typing import Annotated

import tyro


def info(
    paths: Annotated[list[Path], tyro.conf.Positional],
    out: Path | None = None,
    strict: bool = False,
    slop: float = 0.02,
    topics: dict[str, str] | None = None,
) -> int:
    """Tell the facts of clips; draw a contact sheet and a plot of the trajectory of each.

    Example: infinite-nature bag info clips --out pictures

    Args:
        paths: bags (folders with metadata.yaml, .mcap, .db3), and folders with bags in them.
        out: folder for contact.png and trajectory.png, in a folder for each bag; by default
            nothing is drawn.
        strict: end at the first bag that is no clip; otherwise it is skipped with a line that
            says why.
        slop: seconds that stamps of what belongs together may be apart.
        topics: topic by role (image, camera_info, pose, disparity, points), where names and
            types don't tell.

    Returns:
        Exit code: 0, or 1 if all bags were skipped.

    Raises:
        ValueError: if there is no bag; with strict, if a bag is no clip.
        OSError: if a file can't be written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_training.bags import find_clips, read_clips
    from infinite_nature_training.bags.summary import draw, facts

    bags = find_clips(paths)
    above = Path(os.path.commonpath([path.parent for path in bags]))
    told = 0
    for clip in read_clips(bags, strict=strict, topics=topics, slop=slop,
                           skipped=lambda line: print(line, file=sys.stderr)):
        rows = facts(clip)
        if out is not None:
            files = draw(clip, out / clip.path.relative_to(above).with_name(clip.name))
            rows['drawn'] = ', '.join(map(str, files))
        width = max(map(len, rows))
        print('\n'.join([str(clip.path), *(f'  {name:{width}}  {value}'
                                           for name, value in rows.items()), '']))
        told += 1
    return 0 if told else 1
