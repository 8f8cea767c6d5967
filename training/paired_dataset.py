"""Paired dataset: each photo comes with a sequence of a clip, for training from both at once."""

from __future__ import annotations

from typing import Any

from infinite_nature_training.bags.clip import ClipInfo
from infinite_nature_training.datasets import CLIP, SequenceDataset
from infinite_nature_training.epochs import EpochDataset
from infinite_nature_training.photo_dataset import PhotoDataset


class PairedDataset(EpochDataset):
    """Photos, each with the sequence of the same global index; an epoch is one of the photos.

    Args:
        photos: samples as they are.
        clips: samples whose names get ``datasets.CLIP`` in front.
    """

    def __init__(self, photos: PhotoDataset, clips: SequenceDataset) -> None:
        super().__init__(shuffle=False, seed=0)
        self._photos = photos
        self._clips = clips

    @property
    def infos(self) -> dict[str, ClipInfo]:
        """Facts of the photos and clips that are used, by path."""
        return self._photos.infos | self._clips.infos

    def __len__(self) -> int:
        """Count the photos."""
        return len(self._photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample of a global index; see both datasets."""
        clip = self._clips[index]
        return self._photos[index] | {f'{CLIP}{name}': value for name, value in clip.items()}
