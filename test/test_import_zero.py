"""Official weights of InfiniteNature-Zero, from files as PyTorch writes them.

The published file can't be had where this was written: names and shapes are those of the public
code, run with invented weights, which also gave the outputs in ``golden/zero_generator.npz``.
"""

from __future__ import annotations

from collections.abc import Callable
import hashlib
import os
from pathlib import Path
import pickle
import zipfile

import numpy as np
import pytest
import torch
import zero_checkpoint

from infinite_nature_ros import camera, Flight
from infinite_nature_ros.commands import main
from infinite_nature_ros.refining import load_weights, read_header, registry
from infinite_nature_ros.refining.comodgan import CoModRefiner
from infinite_nature_ros.refining.official_zero import import_official_zero, read_zero_checkpoint
from infinite_nature_ros.rendering import Rendered

GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture
def miniature(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register the official network with a sixteenth of the channels."""
    name = 'miniature-zero'
    monkeypatch.setitem(registry._models, name, registry.ModelEntry(
        lambda image_size=(128, 128): CoModRefiner(name, 128 // zero_checkpoint.SHRINK, image_size),
        needs_weights=True))
    return name


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / 'model_latest.tar'
    zero_checkpoint.write(path)
    return path


@pytest.fixture
def command(checkpoint: Path, miniature: str) -> list[str]:
    return ['import-official', str(checkpoint), '--model', miniature]


def test_outputs_equal_the_official_release(miniature: str) -> None:
    with np.load(GOLDEN / 'zero_generator.npz') as arrays:
        golden = {name: torch.from_numpy(value.astype(np.float32))
                  for name, value in arrays.items()}
    network = import_official_zero(zero_checkpoint.variables(), miniature)
    network.mean_style = golden['mean_style']
    (image, disparity), known = golden['frame'].split([3, 1], dim=1), golden['known']
    with torch.inference_mode():
        begun = network.begin(image, disparity, seed=0)
        mapped = network.mapping(golden['z'])
        noise = np.random.RandomState(1).standard_normal(begun['noise'].shape)
        state = {'style': golden['mean_style'] + 0.7 * (mapped - golden['mean_style']),
                 'global_code': begun['global_code'], 'noise': torch.from_numpy(noise).float()}
        refined = network.refine(Rendered(image * known, disparity * known, known), state)
    assert (mapped - golden['mapped']).abs().max() < 1e-4
    assert (begun['global_code'] - golden['global_code']).abs().max() < 1e-4
    assert (torch.cat(refined, 1)[..., ::4, ::4] - golden['refined_every_4th']).abs().max() < 1e-4


def test_names_and_shapes_of_the_release_fit_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    # The mean of 50,000 styles of this size takes seconds.
    monkeypatch.setattr(CoModRefiner, 'update_mean_style', lambda network: None)
    monkeypatch.setattr(zero_checkpoint, 'invent', lambda random, shape: np.zeros(shape))
    network = import_official_zero(zero_checkpoint.variables(shrink=1))
    assert network.config == {'name': 'comodgan', 'image_size': [128, 128]}
    assert sum(parameter.numel() for parameter in network.parameters()) == 65_239_843


def test_the_command_writes_weights_that_fly(command: list[str], checkpoint: Path,
                                             capsys: pytest.CaptureFixture) -> None:
    assert main(command) == 0
    path = checkpoint.with_suffix('.safetensors')
    assert f'--model {path}' in capsys.readouterr().out
    provenance = read_header(path).provenance
    assert 'model_latest.tar of InfiniteNature-Zero' in provenance
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() in provenance
    network = load_weights(path)
    assert network.mean_style.abs().max() > 0
    image, disparity = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96).clamp(0.01)
    flight = Flight(image, disparity, camera.default_intrinsics(64, 96), model=path, sky=False)
    frame = flight.step(flight.frame.pose + torch.tensor([0, 0, 0, -0.1]).expand(1, 3, 4))
    assert torch.isfinite(frame.image).all()


def test_the_mean_style_is_computed_as_the_release_does(miniature: str) -> None:
    network = import_official_zero(zero_checkpoint.variables(), miniature)
    stored = network.mean_style.clone()
    network.update_mean_style(samples=50_000)
    assert torch.equal(stored, network.mean_style)


def rename(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content['netG_ema'] = {f'module.{name}': value for name, value in content['netG_ema'].items()}
    torch.save(content, path)


def write_old_format(path: Path) -> None:
    zero_checkpoint.write(path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize('change', [rename, write_old_format])
def test_other_ways_of_writing_it_are_read(checkpoint: Path, change: Callable) -> None:
    change(checkpoint)
    expected, given = zero_checkpoint.variables(), read_zero_checkpoint(checkpoint)
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[name], value) for name, value in expected.items())


def test_the_archive_of_the_release_is_taken(tmp_path: Path, checkpoint: Path,
                                             command: list[str]) -> None:
    archive = tmp_path / 'downloads' / 'infinite_nature_zero_ckpts_data.zip'
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('test-data/images/0000003.png', b'no checkpoint')
        file.write(checkpoint, '../../checkpoints/model_latest.tar')
    checkpoint.unlink()
    command[1] = str(archive)
    assert main(command) == 0
    assert sorted(file.name for file in archive.parent.iterdir()) == [
        archive.name, 'model_latest.safetensors']
    assert list(tmp_path.iterdir()) == [archive.parent]


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize('new_format', [True, False])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path, new_format: bool,
                                                       capsys: pytest.CaptureFixture) -> None:
    mark, path = tmp_path / 'mark', tmp_path / 'evil_latest.tar'
    content = {'netG_ema': zero_checkpoint.variables(), 'epoch': Trap(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    assert main(['import-official', str(path)]) == 1
    error = capsys.readouterr().err
    assert 'evil_latest.tar asks for posix.mkdir' in error
    assert 'may be malicious' in error
    assert 'none of it was run' in error
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), 'the trap itself must work'


def test_a_bare_pickle_is_refused_and_never_run(tmp_path: Path,
                                                capsys: pytest.CaptureFixture) -> None:
    mark, path = tmp_path / 'mark', tmp_path / 'evil_latest.tar'
    path.write_bytes(pickle.dumps(Trap(mark)))
    assert main(['import-official', str(path)]) == 1
    assert 'evil_latest.tar is truncated, damaged, or no file of PyTorch' in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize('write', [zero_checkpoint.write, write_old_format])
@pytest.mark.parametrize('share', [1e-4, 0.01, 0.5, 0.999])
def test_truncated_files_are_refused_and_leave_nothing(checkpoint: Path, command: list[str],
                                                       write: Callable, share: float,
                                                       capsys: pytest.CaptureFixture) -> None:
    write(checkpoint)
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[:int(share * len(data))])
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {checkpoint} cannot be imported: ')
    assert 'damaged' in error
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_flipped_bit_is_noticed(checkpoint: Path, command: list[str],
                                  capsys: pytest.CaptureFixture) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(data)
    assert main(command) == 1
    assert 'does not match its check sum; fetch it again' in capsys.readouterr().err


@pytest.mark.parametrize('content', [{'state_dict': {}}, [1, 2], {'netG_ema': torch.zeros(3)}])
def test_another_networks_file_is_refused(tmp_path: Path, content: object,
                                          capsys: pytest.CaptureFixture) -> None:
    torch.save(content, tmp_path / 'other.pth')
    assert main(['import-official', str(tmp_path / 'other.pth')]) == 1
    assert 'other.pth is no checkpoint of InfiniteNature-Zero: it has no netG_ema' in (
        capsys.readouterr().err)


def test_an_archive_without_a_checkpoint_is_refused(tmp_path: Path,
                                                    capsys: pytest.CaptureFixture) -> None:
    with zipfile.ZipFile(tmp_path / 'photos.zip', 'w') as file:
        file.writestr('photo.png', b'')
    assert main(['import-official', str(tmp_path / 'photos.zip')]) == 1
    assert 'photos.zip is truncated, damaged, or no file of PyTorch' in capsys.readouterr().err


def test_what_does_not_fit_is_named(miniature: str) -> None:
    variables: dict[str, object] = zero_checkpoint.variables()
    del variables['G_synthesis.G_4x4.Conv.noise.weight']
    variables['G_mapping.G_mapping.Dense8.bias'] = torch.zeros(32)
    variables['style_encoder.E.4x4.Dense0.weight'] = torch.zeros(32, 2048)
    variables['feature_encoder.E.4x4.Conv.1.bias'] = torch.full((32,), torch.nan)
    variables['G_synthesis.G_8x8.ToRGB.bias'] = [0, 0, 0, 0]
    with pytest.raises(ValueError, match='not the variables of an InfiniteNature-Zero') as error:
        import_official_zero(variables, miniature)
    for problem in ('G_synthesis.G_4x4.Conv.noise.weight is missing',
                    'G_mapping.G_mapping.Dense8.bias is unknown',
                    'style_encoder.E.4x4.Dense0.weight is [32, 2048] instead of [32, 512]',
                    'feature_encoder.E.4x4.Conv.1.bias has NaN or infinity',
                    'G_synthesis.G_8x8.ToRGB.bias is no tensor', '5 problems in all'):
        assert problem in str(error.value)


def test_other_filters_are_refused(miniature: str) -> None:
    variables = zero_checkpoint.variables()
    name = 'G_synthesis.G_64x64.ToRGB.upsample.kernel'
    variables[name] = variables[name] / 4
    with pytest.raises(ValueError, match=rf'{name} is another filter than that of the release'):
        import_official_zero(variables, miniature)


@pytest.mark.parametrize('model', ['inpaint', 'infinite-nature', 'comodgan-tiny'])
def test_another_family_or_image_size_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match=rf"'{model}' is of another family or image size"):
        import_official_zero({}, model)


def test_nothing_is_overwritten_unless_forced(tmp_path: Path, command: list[str],
                                              capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'mine.safetensors'
    out.write_text('precious')
    command += ['--out', str(out)]
    assert main(command) == 1
    assert 'mine.safetensors exists; replace it with --force' in capsys.readouterr().err
    assert out.read_text() == 'precious'
    assert main([*command, '--force']) == 0
    assert read_header(out).config['name'] == 'miniature-zero'
