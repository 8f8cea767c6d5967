"""Evaluation: how good flights are, in the figures of the papers and in some of our own."""

from importlib.util import find_spec

for _library in ('jinja2', 'torchmetrics'):
    if find_spec(_library) is None:
        raise ImportError(f'the evaluation needs {_library}, which is not installed; '
                          "say: pip install 'infinite_nature_ros[eval]'")
