"""Official weights: TensorFlow wrote the checkpoints in data/, and here they are read."""

from __future__ import annotations

from functools import partial
import io
from pathlib import Path
import random
import runpy
import shutil
import tarfile

import numpy as np
import PIL.Image
import pytest
import torch

from infinite_nature_ros import Flight
from infinite_nature_ros.commands import main
from infinite_nature_ros.refining import load_weights, read_header, registry
from infinite_nature_ros.refining.crc32c import crc32c
from infinite_nature_ros.refining.official import import_official
from infinite_nature_ros.refining.spade import SpadeRefiner
from infinite_nature_ros.refining.tf_checkpoint import TensorFlowCheckpoint

HERE = Path(__file__).parent
FOREIGN = HERE / 'data' / 'foreign' / 'model.ckpt-7'
MINIATURE = HERE / 'data' / 'miniature'
INDEX, DATA = 'model.ckpt-7.index', 'model.ckpt-7.data-00000-of-00001'


@pytest.fixture(scope='module')
def variables() -> dict[str, np.ndarray]:
    """What TensorFlow was given to write, of the generator."""
    make = runpy.run_path(str(HERE / 'golden' / 'make_weights.py'))['weights']
    return make(str(HERE / 'data' / 'miniature_variables.txt'))


@pytest.fixture
def miniature(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register the official network with 2 channels instead of 32."""
    name = 'miniature'
    monkeypatch.setitem(registry._models, name, registry.ModelEntry(
        lambda image_size=(64, 64): SpadeRefiner(name, 2, 1, image_size), needs_weights=True))
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the small checkpoint, to break it."""
    return Path(shutil.copytree(MINIATURE, tmp_path / 'ckpt'))


def test_check_sums_equal_those_of_the_rfc() -> None:
    assert crc32c(b'') == 0
    assert crc32c(b'123456789') == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize('length', [1, 16_383, 16_384, 17_000, 40_961])
def test_long_data_has_the_check_sum_of_its_bytes_one_by_one(length: int) -> None:
    data = random.Random(length).randbytes(length)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_variables_are_read_as_tensorflow_wrote_them(variables: dict[str, np.ndarray]) -> None:
    checkpoint = TensorFlowCheckpoint(MINIATURE)
    assert variables.keys() < set(checkpoint)
    for name, expected in variables.items():
        np.testing.assert_array_equal(checkpoint[name], expected, strict=True)
    invented = {'discriminator/patch_0/conv_0/kernel', 'global_step', 'beta1_power',
                'generator/spade_encoder/conv_0/bias/Adam_1'}
    assert invented <= set(checkpoint)


@pytest.mark.parametrize('ending', ['', '/model.ckpt-7', f'/{INDEX}', f'/{DATA}'])
def test_a_checkpoint_is_found_by_its_folder_prefix_and_files(ending: str) -> None:
    assert TensorFlowCheckpoint(f'{MINIATURE}{ending}').prefix == MINIATURE / 'model.ckpt-7'


def test_several_data_files_are_read() -> None:
    checkpoint = TensorFlowCheckpoint(FOREIGN)
    assert len(list(FOREIGN.parent.glob('*.data-*'))) == 3
    assert list(checkpoint) == ['classifier/bias', 'classifier/kernel', 'embedding', 'global_step']
    np.testing.assert_array_equal(checkpoint['classifier/bias'], np.float32([0.5, -1, 2, 1e-30]))
    np.testing.assert_array_equal(checkpoint['classifier/kernel'],
                                  np.arange(12, dtype=np.float32).reshape(3, 4))


@pytest.mark.parametrize('name', ['embedding', 'global_step'])
def test_slices_and_other_types_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f'holds {name} in slices or in another type than float32'):
        TensorFlowCheckpoint(FOREIGN)[name]


def test_a_folder_with_none_or_several_checkpoints_is_refused(folder: Path) -> None:
    shutil.copy(folder / INDEX, folder / 'model.ckpt-8.index')
    with pytest.raises(ValueError, match=r'there is model\.ckpt-7, model\.ckpt-8; give the path'):
        TensorFlowCheckpoint(folder)
    with pytest.raises(ValueError, match=r'there is no file \*\.index'):
        TensorFlowCheckpoint(HERE / 'golden')
    with pytest.raises(ValueError, match=r'no TensorFlow checkpoint .*none\.index is missing'):
        TensorFlowCheckpoint(HERE / 'none')


def truncate(length: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:length])


def flip_bit(position: int, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(('file', 'damage', 'complaint'), [
    (INDEX, partial(truncate, 5000), rf'{INDEX} is truncated.*does not end as a table'),
    (INDEX, partial(truncate, 0), rf'{INDEX} is truncated.*does not end as a table'),
    (INDEX, partial(flip_bit, 3000), rf'{INDEX} is truncated, damaged.*check sum'),
    (INDEX, Path.unlink, r'should hold one TensorFlow checkpoint, but there is no file'),
    (DATA, partial(truncate, 300_000), rf'{DATA} is truncated: it has 300000 bytes, but \S+/'),
    (DATA, partial(flip_bit, -40_000), rf'{DATA} is damaged: \S+ does not match its check sum'),
    (DATA, Path.unlink, rf'is incomplete: {DATA} is missing'),
])
def test_broken_checkpoints_are_refused(folder: Path, miniature: str, file: str, damage: partial,
                                        complaint: str) -> None:
    damage(folder / file)
    with pytest.raises(ValueError, match=complaint):
        import_official(TensorFlowCheckpoint(folder), miniature)


@pytest.mark.parametrize('damage', ['cut', 'flip'])
def test_a_broken_index_is_refused_wherever_it_breaks(folder: Path, damage: str) -> None:
    index = (folder / INDEX).read_bytes()
    for at in range(0, len(index) - 48, 97):
        # The footer stays, so that what comes before it is looked at.
        broken = index[:at] + (b'' if damage == 'cut' else bytes([index[at] ^ 1]) + index[at + 1:])
        (folder / INDEX).write_bytes(broken + (index[-48:] if damage == 'cut' else b''))
        with pytest.raises(ValueError, match='is truncated, damaged'):
            TensorFlowCheckpoint(folder)


def test_a_foreign_checkpoint_is_refused(miniature: str) -> None:
    with pytest.raises(ValueError, match=r'not the variables of an Infinite Nature.*185 problems'):
        import_official(TensorFlowCheckpoint(FOREIGN), miniature)


def test_what_an_incomplete_checkpoint_lacks_is_named(miniature: str) -> None:
    with pytest.raises(ValueError, match='not the variables of an Infinite Nature') as error:
        import_official(TensorFlowCheckpoint(HERE / 'data' / 'incomplete'), miniature)
    assert ('generator/spade_encoder/linear_mu/dense/kernel is missing'
            in str(error.value))
    assert 'conv_0' not in str(error.value)


def test_only_the_generator_is_read(folder: Path, miniature: str) -> None:
    # The discriminator and the step come first in the file.
    flip_bit(100, folder / DATA)
    import_official(TensorFlowCheckpoint(folder), miniature)
    with pytest.raises(ValueError, match='does not match its check sum'):
        dict(TensorFlowCheckpoint(folder))


def test_the_command_writes_weights_that_fly(folder: Path, miniature: str, variables: dict,
                                             capsys: pytest.CaptureFixture) -> None:
    assert main(['import-official', str(folder), '--model', miniature]) == 0
    path = folder / 'model.ckpt-7.safetensors'
    assert f'--model {path}' in capsys.readouterr().out
    assert 'model.ckpt-7' in read_header(path).provenance
    expected = import_official(variables, miniature).state_dict()
    imported = load_weights(path).state_dict()
    assert all(torch.equal(imported[name], tensor) for name, tensor in expected.items())
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    flight = Flight.from_photo(PIL.Image.fromarray(photo), model=path, size=(64, 64))
    first = flight.frame
    frame = flight.step(first.pose + torch.tensor([0, 0, 0, -0.1]).expand(1, 3, 4))
    assert torch.isfinite(frame.image).all()
    assert not torch.equal(frame.image, first.image)


def test_nothing_is_overwritten_unless_forced(folder: Path, miniature: str,
                                              capsys: pytest.CaptureFixture) -> None:
    out = folder / 'mine.safetensors'
    out.write_text('precious')
    command = ['import-official', str(folder), '--model', miniature, '--out', str(out)]
    assert main(command) == 1
    assert 'mine.safetensors exists; replace it with --force' in capsys.readouterr().err
    assert out.read_text() == 'precious'
    assert main([*command, '--force']) == 0
    assert read_header(out).config == {'name': miniature, 'image_size': [64, 64]}


def test_a_failed_import_leaves_no_file(folder: Path, miniature: str,
                                        capsys: pytest.CaptureFixture) -> None:
    truncate(300_000, folder / DATA)
    before = sorted(folder.iterdir())
    assert main(['import-official', str(folder), '--model', miniature]) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert 'is truncated' in error
    assert sorted(folder.iterdir()) == before


def test_another_family_is_refused(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    out = tmp_path / 'out.safetensors'
    command = ['import-official', str(MINIATURE), '--out', str(out), '--model']
    assert main([*command, 'inpaint']) == 1
    assert "'inpaint' is of another family" in capsys.readouterr().err
    # Of the right family, but another size.
    assert main([*command, 'infinite-nature-tiny']) == 1
    assert 'conv_0/kernel is [3, 3, 4, 1] instead of [3, 3, 4, 4]' in capsys.readouterr().err
    assert not out.exists()


def pack(folder: Path, archive: Path, name: str = 'ckpt/{}') -> None:
    """Pack a checkpoint as the release does, and a file that is none of it."""
    with tarfile.open(archive, 'w:gz') as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, name.format(file.name))
        tar.addfile(tarfile.TarInfo('ckpt/checkpoint'), io.BytesIO())


@pytest.mark.parametrize('name', ['ckpt/{}', '/{}', '../../{}'])
def test_the_archive_of_the_release_is_taken(tmp_path: Path, miniature: str, name: str) -> None:
    downloads = tmp_path / 'downloads'
    downloads.mkdir()
    pack(MINIATURE, downloads / 'ckpt.tar.gz', name)
    assert main(['import-official', str(downloads / 'ckpt.tar.gz'), '--model', miniature]) == 0
    assert load_weights(downloads / 'model.ckpt-7.safetensors').config['name'] == miniature
    assert len(list(downloads.iterdir())) == 2
    assert list(tmp_path.iterdir()) == [downloads]


def test_a_truncated_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    archive = tmp_path / 'ckpt.tar.gz'
    pack(MINIATURE, archive)
    truncate(200_000, archive)
    assert main(['import-official', str(archive)]) == 1
    assert 'ckpt.tar.gz cannot be imported: it is truncated or damaged' in capsys.readouterr().err


def test_an_archive_without_a_checkpoint_is_refused(tmp_path: Path,
                                                    capsys: pytest.CaptureFixture) -> None:
    pack(HERE / 'golden', tmp_path / 'ckpt.tar.gz')
    assert main(['import-official', str(tmp_path / 'ckpt.tar.gz')]) == 1
    assert 'ckpt.tar.gz cannot be imported' in (error := capsys.readouterr().err)
    assert 'there is no file *.index' in error
