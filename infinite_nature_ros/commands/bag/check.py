"""``infinite-nature bag check``: bags against the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
import tyro


def check(
    paths: Annotated[list[Path], tyro.conf.Positional],
    strict: bool = False,
    json_file: Annotated[Path | None, tyro.conf.arg(name='json')] = None,
    stride: int = 0,
    slop: float = 0.02,
    topics: dict[str, str] | None = None,
) -> int:
    """Check bags against the schema, and whether their pictures, poses and disparity agree.

    A frame is warped to a later one with its disparity and the poses; that must fit better than
    the frame as it is. A bag without disparity passes, one without poses doesn't.

    Example: infinite-nature bag check clips --strict

    Example: infinite-nature bag check flight.mcap --topics image /cam0/image_raw pose /odom

    Args:
        paths: bags (folders with metadata.yaml, .mcap, .db3), and folders with bags in them.
        strict: the schema to the letter; otherwise a bag may have other topics, stamps within
            the slop, and lack what training can do without.
        json_file: file for all that was found, as JSON.
        stride: frames from the source to the target of a warp; 0 chooses it by the motion.
        slop: seconds that stamps of what belongs together may be apart.
        topics: topic by role (image, camera_info, pose, disparity, points), where names and
            types don't tell.

    Returns:
        Exit code: 0, or 1 if a bag fails.

    Raises:
        ValueError: if there is no bag.
        OSError: if the file can't be written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_training.bags import find_clips
    from infinite_nature_training.bags.check import check_clip
    from infinite_nature_training.bags.report import table

    if stride < 0:
        raise ValueError(f'stride is {stride}; give 0 or more')
    reports = [check_clip(path, stride=stride, topics=topics, slop=slop)
               for path in tqdm(find_clips(paths), unit='bag')]
    print(table(reports, strict))
    if json_file is not None:
        json_file.write_text(json.dumps([report.as_dict() for report in reports], indent=1),
                             encoding='utf-8')
    return 0 if all(report.passes(strict) for report in reports) else 1
