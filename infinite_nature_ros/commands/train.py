"""``infinite-nature train``: a model learns from ACID bags, or from photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def train(
    sources: Annotated[tuple[Path, ...], tyro.conf.Positional],
    config: str = 'residual-tiny',
    out: Path = Path('run'),
    validation: tuple[Path, ...] = (),
    set: tuple[str, ...] = (),  # noqa: A002
    credits: Path | None = None,
    masks: Path | None = None,
    licences: tuple[str, ...] = (),
    disparity: str = 'auto',
    names: Path | None = None,
    leave_out: Path | None = None,
    clips: tuple[Path, ...] = (),
    resume: bool = False,
    start_from: Path | None = None,
    vgg: Path | None = None,
    list_configs: bool = False,
) -> int:
    """Train a model on ACID bags, or, with a configuration zero-..., on folders of photos.

    Render, refine, repeat, with gradients through all steps.

    What it learns is in checkpoints, written often and whole or not at all; Ctrl-C ends after the
    present iteration, and --resume goes on from there, bit for bit on a CPU. Watch it with
    tensorboard --logdir OUT/log. On several GPUs or processes: torchrun --nproc-per-node N
    --no-python infinite-nature train ...

    Example: infinite-nature train bags --config residual-tiny --out run --set iterations=2000

    Example: infinite-nature train photos --config zero-tiny --credits photos/photos.csv

    Args:
        sources: ACID bags, or folders of them; clips of the splits validation and test are not
            learned from. Or folders of photos; those of held_out.txt are not learned from.
        config: named configuration, or the config.json of another run.
        out: folder of the run: config.json, checkpoints, log.
        validation: held-out bags or photos; by default those of the split validation, or of
            held_out.txt, among the others.
        set: settings to change, as batch_size=2; --list-configs shows them all.
        credits: of photos: CSV file with the columns file, licence, author and comment.
        masks: of photos: folder of sky masks, PNG, 255 in the sky; by default it is detected.
        licences: learn from photos of these licences only; by default, of all.
        disparity: of photos: source of their disparity, a registered name.
        names: of photos: text file with a name in each line; learn from those only.
        leave_out: of photos: text file of the same kind; don't learn from those.
        clips: ACID bags to learn from beside photos, with the configuration aerial.
        resume: go on from the newest checkpoint in the folder, with its settings and those of
            --set.
        start_from: folder of another run, whose networks this one begins with.
        vgg: weights of VGG16 (safetensors); by default they are fetched once with pip.
        list_configs: show the named configurations with all their settings, and end.

    Returns:
        Exit code: 0.

    Raises:
        ValueError: if a setting, a bag or a photo can't be used.
        OSError: if something can't be read or written.
    """
    # Here, so that --help needn't wait for torch.
    from infinite_nature_training.configs import describe_configs, load_config

    if list_configs:
        print(describe_configs())
        return 0
    from infinite_nature_training import runs

    settings = runs.read_config(out) if resume else load_config(config)
    files = runs.PhotoFiles(credits, masks, licences, disparity, names, leave_out,
                            clips)
    trainer = runs.train(settings.changed(set), sources, out, validation=validation,
                         photo_files=files, resume=resume,
                         start_from=start_from, vgg=vgg)
    print(f'{out}: {trainer.step} iterations. To fly with it:\n'
          f'infinite-nature export {out} --out model.safetensors\n'
          'infinite-nature fly --model model.safetensors')
    return 0
