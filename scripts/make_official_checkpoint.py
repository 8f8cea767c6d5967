r"""Write a TensorFlow checkpoint as the official release's trainer left it, invented weights.

Beside the generator's variables it holds a discriminator, Adam's slots and the step, as the real
one does. Needs TensorFlow (``pip install tensorflow-cpu``), which nothing else here does::

    python scripts/make_official_checkpoint.py test/golden/generator_variables.txt \
        ckpt/model.ckpt-6935893                # 143 MB, whose outputs test/golden/ knows
    python scripts/make_official_checkpoint.py test/data/miniature_variables.txt \
        test/data/miniature/model.ckpt-7       # the small one of the tests
    python scripts/make_official_checkpoint.py test/data/miniature_variables.txt \
        test/data/incomplete/model.ckpt-7 --only generator/spade_encoder/conv
    python scripts/make_official_checkpoint.py --foreign test/data/foreign/model.ckpt-7
"""

from __future__ import annotations

import argparse
from pathlib import Path
import runpy

import numpy as np
import tensorflow.compat.v1 as tf

GOLDEN = Path(__file__).resolve().parents[1] / 'test' / 'golden'


def main() -> None:
    """Write the checkpoint that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('listing', type=Path, nargs='?', help='names and shapes of the variables')
    parser.add_argument('prefix', type=Path, help='path of the checkpoint without endings')
    parser.add_argument('--foreign', action='store_true', help="another model's, in several files")
    parser.add_argument('--only', default='', help='what the names of the listing start with')
    options = parser.parse_args()
    tf.disable_eager_execution()
    options.prefix.parent.mkdir(parents=True, exist_ok=True)
    if options.foreign:
        save_foreign(options.prefix)
    elif options.listing is None:
        parser.error('give a listing, or --foreign')
    else:
        save_official(options.listing, options.prefix, options.only)


def save_official(listing: Path, prefix: Path, only: str) -> None:
    """Save the variables of a listing, with the values that ``make_weights.py`` gives them."""
    weights = runpy.run_path(str(GOLDEN / 'make_weights.py'))['weights'](str(listing))
    values = {name: value for name, value in weights.items() if name.startswith(only)}
    values |= {f'discriminator/patch_0/conv_0/{leaf}': np.ones(shape, np.float32)
               for leaf, shape in (('kernel', (4, 4, 4, 8)), ('bias', (8,)), ('u', (1, 8)))}
    variables = [tf.get_variable(name, value.shape) for name, value in values.items()]
    # Adam makes its slots here and never runs; slots of all would treble the file.
    trained = [variable for variable in variables if variable.op.name.endswith('_0/bias')]
    loss = tf.add_n([tf.reduce_sum(variable) for variable in trained])
    step = tf.train.get_or_create_global_step()
    tf.train.AdamOptimizer(1e-4, 0.5, 0.9).minimize(loss, step, trained)
    save(tf.train.Saver(), prefix, values)


def save_foreign(prefix: Path) -> None:
    """Save another model's variables: several files, one in slices, one of whole numbers."""
    values = {'classifier/kernel': np.arange(12, dtype=np.float32).reshape(3, 4),
              'classifier/bias': np.array([0.5, -1, 2, 1e-30], np.float32)}
    # Two devices, so that a sharded saver writes several files.
    for device, (name, value) in enumerate(values.items()):
        with tf.device(f'/cpu:{device}'):
            tf.get_variable(name, value.shape)
    tf.get_variable('embedding', (6, 2), initializer=tf.ones_initializer(),
                    partitioner=tf.fixed_size_partitioner(2))
    tf.train.get_or_create_global_step()
    save(tf.train.Saver(sharded=True), prefix, values)


def save(saver: tf.train.Saver, prefix: Path, values: dict[str, np.ndarray]) -> None:
    """Give variables their values and save all there are."""
    with tf.Session(config=tf.ConfigProto(device_count={'CPU': 2})) as session:
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            if variable.op.name in values:
                variable.load(values[variable.op.name], session)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)


if __name__ == '__main__':
    main()
