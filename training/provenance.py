"""Provenance: what a weights file was made from, in facts that can be checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
import subprocess
from typing import Any

import torch

from infinite_nature_training.bags import ClipInfo

_PACKAGE = 'infinite_nature_ros'

# Thousands of videos are told by their number alone.
_MOST_SOURCES = 100


def describe_run(clips: Mapping[str, ClipInfo], seed: int) -> dict[str, Any]:
    """Facts of a training run that are known when it starts.

    Args:
        clips: facts of the clips that it learns from, by name.
        seed: of the run.

    Returns:
        Number of clips, their sources, licences and credits, seed, versions and commit; JSON.
    """
    return {'clips': len(clips),
            'licences': sorted({info.licence or 'unknown' for info in clips.values()}),
            'sources': sorted({info.source for info in clips.values()})[:_MOST_SOURCES],
            'credits': _credits(clips.values()),
            'seed': seed, 'version': metadata.version(_PACKAGE), 'commit': source_commit(),
            'torch': torch.__version__}


def _credits(clips: Iterable[ClipInfo]) -> list[dict[str, Any]]:
    """Whose the clips are, where that was said: every source by licence, author and comment."""
    sources: dict[tuple[str, str, str], list[str]] = {}
    for info in clips:
        author, comment = (str(info.details.get(name, '')) for name in ('author', 'comment'))
        if author or comment:
            sources.setdefault((info.licence, author, comment), []).append(info.source)
    return [{'licence': licence, 'author': author, 'comment': comment, 'sources': sorted(names)}
            for (licence, author, comment), names in sorted(sources.items())]


def source_commit() -> str:
    """Commit of the source tree that runs here, '' where it is installed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / '.git').exists():
        return ''
    try:
        # Never a tag's name alone, which could be moved.
        done = subprocess.run(['git', '-C', root, 'describe', '--always', '--dirty', '--exclude=*'],
                              capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ''
    return done.stdout.strip()
