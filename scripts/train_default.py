"""Trains `aerial`, from nothing but this repository and a Debian package of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import sys
import zipfile

from fetch_photos import fetch, FetchError, LIST
import tyro

from infinite_nature_ros.commands.bag.from_coast import from_coast
from infinite_nature_ros.commands.bag.from_video import from_video
from infinite_nature_training import runs
from infinite_nature_training.configs import load_config, TrainingConfig

ROOT = Path(__file__).resolve().parents[1]

# What ships is made of these alone, so that it can carry the project's licence.
FREE_LICENCES = ('public-domain', 'CC0')

# Of the video, so many first frames are learned from; the others are for tests (test/video).
_CLIP_FRAMES = 240

COASTS = {'count': 50, 'frames': 60, 'size': (160, 256)}
"""Procedural coasts that are learned from, as ``from_coast`` takes them; their seeds begin at 0."""


@dataclass(frozen=True)
class Stage:
    """A training run; each one begins with the networks of the one before.

    Attributes:
        name: of its folder.
        settings: what it changes in the configuration ``aerial``.
        until: iterations at which it ends, whatever it was meant to last.
        clips: learn from coasts and video, too.
    """

    name: str
    settings: tuple[str, ...]
    until: int
    clips: bool = False

    def config(self) -> TrainingConfig:
        """All settings."""
        return load_config('aerial').changed([*_ALWAYS, *self.settings])


# A cycle's errors don't tell how flights look, so nothing is validated: what counts is the newest.
_ALWAYS = ('validate_every=100000', 'checkpoint_every=100', 'log_every=20', 'picture_every=100')

# Beside clips, which smooth, the discriminator of flights gets more weight, the features less.
_WITH_CLIPS = ('clip_batch=1', 'lead_steps=3', 'feature_weight=1.0', 'size=160,256')

STAGES = (
    Stage('stage1', ('size=96,160', 'iterations=6000'), until=1765),
    Stage('stage2', (*_WITH_CLIPS, 'iterations=3000', 'pool_weight=3', 'pool_flights=20',
                     'pool_growth=0.25', 'seed=1'), until=401, clips=True),
    Stage('stage3', (*_WITH_CLIPS, 'iterations=6000', 'pool_weight=2', 'pool_flights=16',
                     'pool_growth=0.05', 'seed=3', 'discriminator_rest=0.9'), until=376,
          clips=True))

# Photos, bags, and in the end the weights.
_STEPS = len(STAGES) + 3

# All of it in minutes, to see whether it works here; what comes out can't fly.
_QUICK_COASTS = {'count': 2, 'frames': 24, 'size': (64, 96)}
_QUICK = ('size=96,96', 'batch_size=2', 'discriminator_width=4', 'pool_flights=2', 'pool_batch=2',
          'workers=0')
_QUICK_ITERATIONS = 2


def train_default(out: Path = Path('default_model'), *, photos: Path | None = None,
                  package: Path | None = None, coasts: Path | None = None,
                  clip: Path | None = None, weights: Path | None = None, device: str = 'cpu',
                  quick: bool = False) -> int:
    """Train what is to be the default model: photographs, bags, three stages, a file to fly with.

    Six steps, each in a folder of its own. Whatever ends it, Ctrl-C and kill -9 included, the
    same command goes on where it was; what is done is kept. Trainings take hours on two CPU
    cores, and use a GPU where there is one; tensorboard --logdir OUT shows them. Another machine
    makes other bytes of the same recipe. docs/aerial.md says why it is as it is.

    1. photos: 261 photographs out of a Debian package (738 MB, downloaded once), by
       scripts/fetch_photos.py. Learned from are those that are public domain or CC0, less
       training/held_out.txt; where their sky is tell training/sky_masks.zip.
    2. bags: 50 procedural coasts, and frames 0 to 239 of test/video/karma.mp4.
    3. stage1: small frames, photographs alone.
    4. stage2: frames of the size that is flown, and the bags besides.
    5. stage3: the same, with a discriminator that rests while it wins.
    6. The averaged weights, in half precision.

    It needs pip install 'infinite_nature_ros[train]'.

    Examples::

        python scripts/train_default.py --quick --out trial
        python scripts/train_default.py --out default_model
        infinite-nature fly --model default_model/aerial_small.safetensors

    Args:
        out: folder for all that is made.
        photos: folder of the photographs of training/photos.csv, if you have them.
        package: the Debian package they are in, if you have it.
        coasts: folder of bags to learn from instead of procedural coasts of its own.
        clip: bag to learn from instead of the video's beginning.
        weights: file to write; aerial_small.safetensors in the folder if not given.
        device: where coasts are rendered: cpu, or a CUDA device as cuda:0.
        quick: two iterations of everything on tiny frames, to see whether it works here. The
            photographs (unless given) and the video (unless clip is given) take their time.

    Returns:
        Exit code: 0, or 130 where Ctrl-C ended a training.

    Raises:
        FetchError: if the photographs can't be had.
        ValueError: if something given can't be used, or the folder is of other settings.
        OSError: if something can't be read or written.
    """
    if photos is None:
        _say(f'1/{_STEPS} photos')
        photos = out / 'photos'
        fetch(photos, package=package)
    masks = out / 'masks'
    with zipfile.ZipFile(ROOT / 'training' / 'sky_masks.zip') as archive:
        archive.extractall(masks)
    _say(f'2/{_STEPS} bags')
    clips = (coasts or _make_coasts(out / 'coasts', device, quick),
             clip or _make_clip(out / 'video'))
    files = runs.PhotoFiles(LIST, masks, FREE_LICENCES, disparity='horizon')
    before = None
    for number, stage in enumerate(_shortened(STAGES) if quick else STAGES, start=3):
        _say(f'{number}/{_STEPS} {stage.name}: {stage.until} iterations')
        before = _run_stage(stage, photos, replace(files, clips=clips if stage.clips else ()),
                            out / stage.name, before)
        if before is None:
            print('ended early; the same command goes on here')
            return 130
    weights = weights or out / 'aerial_small.safetensors'
    chosen = runs.export(before, weights, 'newest', half=True)
    _say(f'{_STEPS}/{_STEPS} {weights}: weights of {before.name}, {chosen.name}. To fly with it:\n'
         f'infinite-nature fly --model {weights}')
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _make_coasts(folder: Path, device: str, quick: bool) -> Path:
    from_coast(folder, **(_QUICK_COASTS if quick else COASTS), device=device, strict=True)
    return folder


def _make_clip(folder: Path) -> Path:
    """Bag of the first frames of the video; the second one, of its rest, is nobody's here."""
    from_video([ROOT / 'test' / 'video' / 'karma.mp4'], folder, licence='MIT',
               max_frames=_CLIP_FRAMES, disparity='dense', strict=True)
    return folder / 'karma' / '000'


def _run_stage(stage: Stage, photos: Path, files: runs.PhotoFiles, folder: Path,
               before: Path | None) -> Path | None:
    """Train a stage to its end; returns its folder, ``None`` if it was ended early.

    Raises:
        ValueError: if the folder's run has other settings.
    """
    config = stage.config()
    if (folder / runs.CONFIG_FILE).exists() and runs.read_config(folder) != config:
        raise ValueError(f'{folder} holds a run of other settings; give another --out, or delete '
                         'it to begin anew')
    trainer = runs.train(config, [photos], folder, photo_files=files, resume=True,
                         start_from=before, until=stage.until)
    return folder if trainer.step >= stage.until else None


def _shortened(stages: Sequence[Stage]) -> list[Stage]:
    return [replace(stage, settings=(*stage.settings, *_QUICK), until=_QUICK_ITERATIONS)
            for stage in stages]


def main() -> int:
    """Run the command; returns its exit code."""
    try:
        return tyro.cli(train_default)
    except (FetchError, ValueError, OSError) as error:
        print(f'train_default: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
