"""Pickled NumPy arrays of strangers, read without running any code of theirs."""

from __future__ import annotations

from pathlib import Path
import pickle
from typing import Any

# All that a pickled dictionary of arrays needs; nothing here runs code of the file's choosing.
_ADMITTED = {
    ('_codecs', 'encode'),
    ('builtins', 'bytearray'),
    ('builtins', 'complex'),
    ('builtins', 'frozenset'),
    ('builtins', 'set'),
    ('collections', 'OrderedDict'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    *((module, name)
      for package in ('numpy.core', 'numpy._core')
      for module, name in ((f'{package}.multiarray', '_reconstruct'),
                           (f'{package}.multiarray', 'scalar'),
                           (f'{package}.numeric', '_frombuffer'))),
}


def load_arrays(path: str | Path) -> Any:
    """Read a pickle of NumPy arrays, numbers, texts and plain containers.

    Raises:
        ValueError: if the pickle asks for anything else.
        pickle.UnpicklingError: if it is damaged.
        OSError: if it can't be read.
    """
    with Path(path).open('rb') as file:
        return _ArrayUnpickler(file, encoding='latin1').load()


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that admits NumPy arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up what a pickle asks for, if it is harmless."""
        if (module, name) not in _ADMITTED:
            raise ValueError(f'the pickle asks for {module}.{name}, which is not admitted; '
                             'it may be malicious, only arrays and plain containers are read')
        # NumPy 2 still knows the old name of its core, under protest.
        return super().find_class(module.replace('numpy.core', 'numpy._core'), name)
