"""Configurations: everything that a training run depends on, in one dataclass, and by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
import inspect
import json
from pathlib import Path
from typing import Any, get_type_hints

_DIVISOR = 32  # the networks halve an image five times


@dataclass(frozen=True)
class TrainingConfig:
    """All settings of a training run; the defaults are the paper's, or the release's.

    Where neither says anything, the note behind a field says whose choice it is.
    """

    # What is learned from: sequences of posed frames (Infinite Nature), or photos (Zero).
    learns_from: str = 'sequences'
    # Network to train, a name of refining.list_models().
    model: str = 'infinite-nature'
    # Height and width of the frames (paper, section 5; Zero: 128 x 128).
    size: tuple[int, int] = (160, 256)
    # T: steps of render, refine, repeat with gradient (paper, section 5); the most of them in Zero.
    rollout_steps: int = 5
    # Steps flown without gradient in front of them, up to this many, so that late frames meet real
    # ones too (ours; the pushforward of Brandstetter et al. 2022).
    lead_steps: int = 0
    # Sequences in a batch of one process (paper: 4 on each of 10 GPUs).
    batch_size: int = 4
    # Batches whose gradients are added up before the weights move.
    accumulate: int = 1
    # Times that the weights move (paper: 7 million).
    iterations: int = 7_000_000
    # Scale each disparity to the one carried over in training; the paper does so in flight only.
    train_grounding: bool = False
    # The same in flights with the exported weights; without, it is the paper's ablation.
    grounding: bool = True

    # Weight of the L1 loss on RGB-D (release).
    reconstruction_weight: float = 0.5
    # Weight of the VGG loss on RGB (release); 0 needs no VGG.
    perceptual_weight: float = 0.01
    # Steps of a roll-out whose frames VGG sees; 0: all. VGG costs more than a small refiner.
    perceptual_steps: int = 0
    # Weight of the hinge loss, for both networks (release); 0 trains without discriminator.
    adversarial_weight: float = 1.5
    # Weight of the discriminator's feature matching (release).
    feature_matching_weight: float = 10.0
    # Weight of the divergence of the style code, summed over the batch (release).
    divergence_weight: float = 0.05

    # Flights: clips of a batch that are flown along, of those that come with its photos.
    clip_batch: int = 2
    # Flights: weight of what is compared along clips, beside that of cycles.
    clip_weight: float = 0.15
    # Flights: weight of the distance in features of EfficientNet-Lite0.
    feature_weight: float = 0.0
    # Photos: weight of the L1 loss on disparity alone (Zero has none on RGB).
    disparity_weight: float = 0.0
    # Photos: factor on all that is compared where a made frame is the model (Zero).
    late_weight: float = 0.05
    # Photos: weight of R1, the squared gradient at real frames (Zero: 0.15 on LHQ, 0.004 on ACID).
    r1_weight: float = 0.15
    # Photos: iterations between two times that R1 is computed; it counts that often then (Zero).
    r1_every: int = 16
    # Photos: judge only the last frame of a flight, against the photo it began at (Zero); without,
    # all of its frames, which are then many more than the photos.
    balanced: bool = True
    # Photos: iterations on cycles alone, before any flight (Zero).
    cycle_iterations: int = 200_000
    # Photos: iterations until the longest flight grows by a step (Zero); 0: it's T at once.
    growth_iterations: int = 25_000
    # Photos: last steps of a flight that gradients go back through; 0: all (Zero).
    gradient_steps: int = 0
    # Photos: keep the sky of the photos in training, as flights do (Zero).
    sky: bool = True
    # Photos: least and greatest share of a photo's height that a crop takes (ours).
    crop: tuple[float, float] = (0.5, 1.0)

    # Learning rate of the refiner (Park et al. 2019; neither paper nor release says).
    generator_rate: float = 1e-4
    # Learning rate of the discriminator (Park et al. 2019).
    discriminator_rate: float = 4e-4
    # Adam's decay rates (Park et al. 2019).
    betas: tuple[float, float] = (0.0, 0.9)
    # Channels behind the discriminator's first layer (release).
    discriminator_width: int = 64
    # Flights: the discriminator rests while its loss is below this: what wins teaches little.
    discriminator_rest: float = 0.0
    # Largest norm of a gradient; 0 does not clip (ours: off, as nobody says).
    gradient_clip: float = 0.0
    # Decay of the averaged weights that are exported and validated (ours).
    ema_decay: float = 0.999

    # Flights that are kept running and trained on their own late frames; 0: none, as the paper.
    pool_flights: int = 0
    # Flights of the pool that one iteration advances.
    pool_batch: int = 2
    # Steps with gradient that they are advanced by.
    pool_steps: int = 2
    # Weight of the hinge loss of its frames, for the refiner.
    pool_weight: float = 1.5
    # Oldest age of a flight in frames; it starts low.
    pool_age: int = 100
    # Share of the run after which that age is reached.
    pool_growth: float = 0.5

    # Scene units a step that sequences are subsampled to, within 30 % (docs/acid_bags.md).
    speed: float = 0.2
    # Colour of all frames of a sequence varied, and flipped sequences (ours).
    augment: bool = True

    # Compute each step anew on the way back: the memory of one step instead of T.
    checkpointing: bool = True
    # 'no', 'bf16' (networks only; rendering stays in float32), or 'float64' (tests).
    precision: str = 'no'
    # Rasteriser, a name of rendering.list_backends().
    backend: str = 'warp'
    # Processes that load sequences.
    workers: int = 2
    # Draws weights, sequences, augmentation and style codes.
    seed: int = 0

    # Iterations between two lines of the log.
    log_every: int = 10
    # Iterations between two rows of pictures.
    picture_every: int = 500
    # Iterations between two checkpoints.
    checkpoint_every: int = 500
    # Checkpoints that are kept beside the best one.
    keep_checkpoints: int = 3
    # Iterations between two validations.
    validate_every: int = 500
    # Sequences that are validated on, always the same.
    validation_sequences: int = 16

    def __post_init__(self) -> None:
        """Refuse what can't be, before hours are spent on it."""
        height, width = self.size
        _require(not height % _DIVISOR and not width % _DIVISOR and min(self.size) >= 64,
                 f'size is {height} x {width}; give multiples of {_DIVISOR}, at least 64')
        for name in ('rollout_steps', 'batch_size', 'accumulate', 'iterations', 'log_every',
                     'picture_every', 'checkpoint_every', 'keep_checkpoints', 'validate_every',
                     'validation_sequences', 'discriminator_width', 'r1_every', 'clip_batch',
                     'pool_steps', 'pool_age'):
            _require(getattr(self, name) >= 1, f'{name} is {getattr(self, name)}; give 1 or more')
        _require(self.learns_from in ('sequences', 'photos', 'flights'),
                 f'learns_from is {self.learns_from!r}; give sequences, photos or flights')
        _require(self.learns_from != 'photos' or not self.pool_flights,
                 'pool_flights are of sequences; photos have flights of their own')
        _require(self.learns_from != 'flights' or self.pool_flights > 0,
                 f'pool_flights is {self.pool_flights}; what learns from flights needs 1 or more')
        _require(0 < self.crop[0] <= self.crop[1] <= 1,
                 f'crop is {self.crop}; give least and greatest share, above 0 and up to 1')
        weights = [field.name for field in fields(self) if field.name.endswith('_weight')]
        for name in ('lead_steps', 'cycle_iterations', 'growth_iterations', 'gradient_steps',
                     'pool_flights', *weights):
            _require(getattr(self, name) >= 0, f'{name} is {getattr(self, name)}; give 0 or more')
        _require(self.adversarial_weight > 0 or not self.feature_matching_weight,
                 'feature_matching_weight needs a discriminator; set it to 0 as well')
        _require(not self.pool_flights or self.adversarial_weight > 0,
                 'only the discriminator judges pool_flights; give adversarial_weight > 0')
        _require(not self.pool_flights or 1 <= self.pool_batch <= self.pool_flights,
                 f'pool_batch is {self.pool_batch}; give 1 to pool_flights, {self.pool_flights}')
        _require(0 < self.pool_growth <= 1, f'pool_growth is {self.pool_growth}; give a share')
        _require(self.precision in ('no', 'bf16', 'float64'),
                 f'precision is {self.precision!r}; give no, bf16 or float64')
        _require(0 <= self.ema_decay < 1, f'ema_decay is {self.ema_decay}; give 0 up to 1')

    @property
    def needs_discriminator(self) -> bool:
        """Whether anything asks what looks real."""
        return self.adversarial_weight > 0

    def to_json(self) -> str:
        """All fields, one a line."""
        return json.dumps(vars(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Read what :meth:`to_json` wrote."""
        values = {name: tuple(value) if isinstance(value, list) else value
                  for name, value in json.loads(text).items()}
        return cls(**values)

    def changed(self, settings: Iterable[str]) -> TrainingConfig:
        """Copy with some fields set from texts such as ``batch_size=2`` or ``size=96,160``.

        Raises:
            ValueError: if there is no such field, or the text is no value for it.
        """
        kinds = get_type_hints(type(self))
        changes: dict[str, Any] = {}
        for setting in settings:
            name, equals, text = setting.partition('=')
            if not equals or name not in kinds:
                raise ValueError(f'setting {setting!r} is unknown; give NAME=VALUE with a name '
                                 f'out of {", ".join(kinds)}')
            try:
                changes[name] = _parse(text, getattr(self, name), kinds[name])
            except ValueError as error:
                raise ValueError(f'setting {setting!r} cannot be read ({error})') from error
        return replace(self, **changes)


def _parse(text: str, present: Any, kind: Any) -> Any:
    """Value of a field's type."""
    if kind is bool:
        if text not in ('true', 'false'):
            raise ValueError('give true or false')
        return text == 'true'
    if kind in (int, float, str):
        return kind(text)
    if text == 'none':
        return None
    numbers = tuple(float(part) for part in text.split(','))
    if len(numbers) != 2:
        raise ValueError('give two numbers with a comma between')
    whole = isinstance(present, tuple) and isinstance(present[0], int)
    return tuple(int(number) for number in numbers) if whole else numbers


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ValueError(text)


_PAPER = TrainingConfig()

# Learns within half an hour on two cores: a small residual network on small frames, the
# reconstruction losses much, the discriminator little.
_TINY = replace(
    _PAPER, model='residual-tiny', size=(96, 160), batch_size=2, iterations=20_000,
    reconstruction_weight=10.0, perceptual_weight=0.02, adversarial_weight=0.2,
    feature_matching_weight=2.0, divergence_weight=1e-4, discriminator_width=32, perceptual_steps=1,
    ema_decay=0.99, generator_rate=2e-4, discriminator_rate=4e-4, checkpointing=False)

# For hours instead: what half an hour teaches rings after some 25 frames; flights that were under
# way for a while, beside real frames and in the pool, teach it not to.
_LONG = replace(
    _TINY, lead_steps=10, pool_flights=24, pool_batch=4, pool_weight=0.5, pool_age=150,
    adversarial_weight=0.5, ema_decay=0.998)

# Zero as published; the style of the first paper's generator needs no divergence here, and where
# neither paper nor release says anything (rates, clipping) it's ours.
_ZERO = replace(
    _PAPER, learns_from='photos', size=(128, 128), rollout_steps=10, batch_size=32,
    iterations=1_800_000, grounding=False, reconstruction_weight=0.0, disparity_weight=1.0,
    adversarial_weight=1.0, feature_matching_weight=0.0, divergence_weight=0.0,
    betas=(0.0, 0.99), gradient_clip=1.0)

# Learns within half an hour on two cores: flights are long, but gradients go through their last
# steps alone.
_ZERO_TINY = replace(
    _TINY, learns_from='photos', rollout_steps=20, gradient_steps=2, batch_size=4,
    feature_matching_weight=0.0, divergence_weight=0.0, train_grounding=True,
    cycle_iterations=300, growth_iterations=30, gradient_clip=1.0, betas=(0.0, 0.99))

# For long flights: photos, clips and flights of its own, on two cores or a GPU.
_AERIAL = replace(
    _PAPER, learns_from='flights', model='aerial-small', batch_size=4, iterations=12_000,
    rollout_steps=2, lead_steps=6, train_grounding=True, reconstruction_weight=10.0,
    feature_weight=2.0, perceptual_weight=0.0,
    pool_weight=1.0, pool_flights=32, pool_batch=4, pool_steps=2, pool_age=500,
    feature_matching_weight=0.0, divergence_weight=0.0, adversarial_weight=1.0,
    generator_rate=2e-4, discriminator_rate=2e-4, betas=(0.0, 0.99), discriminator_width=32,
    gradient_clip=1.0, ema_decay=0.998, checkpointing=False, precision='bf16', workers=1)

_NO_CYCLE = {'reconstruction_weight': 0.0, 'disparity_weight': 0.0, 'perceptual_weight': 0.0,
             'cycle_iterations': 0}

CONFIGS = {
    'infinite-nature': _PAPER,
    'infinite-nature-small': replace(_PAPER, model='infinite-nature-small'),
    'infinite-nature-tiny': replace(_TINY, model='infinite-nature-tiny'),
    'residual-tiny': _TINY,
    'residual-tiny-pool': replace(_TINY, pool_flights=24, pool_weight=0.2),
    'residual-tiny-long': _LONG,
    'no-repeat': replace(_PAPER, rollout_steps=1),
    'no-grounding': replace(_PAPER, grounding=False),
    'no-refine': replace(_PAPER, model='no-refine'),
    'aerial': _AERIAL,
    'zero': _ZERO,
    'zero-comodgan': replace(_ZERO, model='comodgan'),
    'zero-tiny': _ZERO_TINY,
    'zero-no-cycle': replace(_ZERO, **_NO_CYCLE),
    'zero-no-balance': replace(_ZERO, balanced=False),
    'zero-no-progressive': replace(_ZERO, cycle_iterations=0, growth_iterations=0),
    'zero-no-sky': replace(_ZERO, sky=False),
}
"""Configurations by name."""


def load_config(name_or_path: str) -> TrainingConfig:
    """Look up a configuration by name, or read one that a run left beside its weights.

    Raises:
        ValueError: if there is neither such a name nor such a file, or the file is none.
    """
    if name_or_path in CONFIGS:
        return CONFIGS[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(f'no configuration is named {name_or_path!r}; give one of '
                         f'{", ".join(CONFIGS)}, or the path of a config.json')
    try:
        return TrainingConfig.from_json(path.read_text(encoding='utf-8'))
    except (TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is no configuration of this version ({error})') from error


def describe_configs() -> str:
    """Text of all settings with what they mean, and of how named configurations differ."""
    defaults = vars(_PAPER)
    lines = ['Settings of the configuration infinite-nature:']
    for name, meaning in _meanings().items():
        lines += [f'  {name}={_text(defaults[name])}', f'      {meaning}']
    lines.append('Configurations, and what they change in it:')
    for name, config in CONFIGS.items():
        changes = [f'{field}={_text(value)}' for field, value in vars(config).items()
                   if value != defaults[field]]
        lines.append(f'  {name}: {" ".join(changes) or "nothing"}')
    return '\n'.join(lines)


def _meanings() -> dict[str, str]:
    """Comments above the fields, by field."""
    meanings: dict[str, str] = {}
    comment: list[str] = []
    for line in inspect.getsource(TrainingConfig).splitlines():
        text = line.strip()
        if text.startswith('#'):
            comment.append(text.lstrip('# '))
            continue
        name = text.partition(':')[0]
        if comment and name in TrainingConfig.__dataclass_fields__:
            meanings[name] = ' '.join(comment)
        comment = []
    return meanings


def _text(value: Any) -> str:
    """Text of a value as ``changed`` reads it."""
    if isinstance(value, tuple):
        return ','.join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
