"""Photos of every kind become upright RGB tensors; unusable ones are refused with advice."""

from __future__ import annotations

import csv
import io
from pathlib import Path
import struct
import zlib

import numpy as np
from PIL import Image
import pytest
import torch

from infinite_nature_ros import photos
from infinite_nature_ros.photos import default_photo, load_photo, sample_photos

SIZE = (64, 96)

# Red, green, blue and white quarters: tells all eight orientations apart.
QUARTERS = np.zeros((128, 192, 3), np.uint8)
QUARTERS[:64, :96] = (255, 0, 0)
QUARTERS[:64, 96:] = (0, 255, 0)
QUARTERS[64:, :96] = (0, 0, 255)
QUARTERS[64:, 96:] = (255, 255, 255)

# How a camera held that way stores an upright scene: the inverse of what EXIF asks to be done.
STORED = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


def encode(picture: Image.Image, kind: str = 'PNG', **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit PNG (grey, RGB or RGBA), which Pillow itself can't write in colour."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    rows = pixels.astype('>u2').reshape(height, -1)
    data = b''.join(b'\0' + row.tobytes() for row in rows)

    def chunk(name: bytes, content: bytes) -> bytes:
        return (struct.pack('>I', len(content)) + name + content
                + struct.pack('>I', zlib.crc32(name + content)))

    header = struct.pack('>IIBBBBB', width, height, 16, colour_type, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(data))
            + chunk(b'IEND', b''))


def quarters(image: torch.Tensor) -> torch.Tensor:
    """``[2, 2, 3]`` colours in the middle of the quarters."""
    height, width = image.shape[-2:]
    rows = torch.tensor([height // 4, 3 * height // 4])
    columns = torch.tensor([width // 4, 3 * width // 4])
    return image[0][:, rows][:, :, columns].permute(1, 2, 0)


UPRIGHT = torch.tensor([[[1., 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_turns_the_photo_upright(orientation, tmp_path):
    picture = Image.fromarray(QUARTERS)
    for operation in STORED[orientation]:
        picture = picture.transpose(operation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / 'photo.jpg'
    picture.save(path, exif=exif, quality=95)
    image = load_photo(path, SIZE)
    assert image.shape == (1, 3, *SIZE)
    torch.testing.assert_close(quarters(image), UPRIGHT, atol=0.02, rtol=0)


@pytest.mark.parametrize('kind', ['path', 'str', 'bytes', 'pil', 'uint8', 'uint16', 'float'])
def test_every_way_to_hand_over_a_photo_gives_the_same(kind, tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(QUARTERS).save(path)
    source = {
        'path': path, 'str': str(path), 'bytes': path.read_bytes(),
        'pil': Image.open(path), 'uint8': QUARTERS, 'uint16': QUARTERS.astype(np.uint16) * 257,
        'float': QUARTERS / np.float32(255),
    }[kind]
    image = load_photo(source, SIZE)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    torch.testing.assert_close(quarters(image), UPRIGHT)


@pytest.mark.parametrize('mode', ['L', 'P', 'CMYK', 'RGBA', 'LA', '1', 'YCbCr'])
def test_colour_modes_become_rgb(mode):
    rgb = Image.fromarray(QUARTERS)
    expected = quarters(load_photo(rgb.convert(mode).convert('RGB'), SIZE))
    kind = 'TIFF' if mode in ('CMYK', 'YCbCr') else 'PNG'
    image = load_photo(encode(rgb.convert(mode), kind), SIZE)
    torch.testing.assert_close(quarters(image), expected, atol=0.01, rtol=0)


def test_cmyk_jpeg_keeps_its_colours():
    image = load_photo(encode(Image.fromarray(QUARTERS).convert('CMYK'), 'JPEG', quality=95), SIZE)
    torch.testing.assert_close(quarters(image), UPRIGHT, atol=0.03, rtol=0)


def test_transparent_parts_are_white():
    pixels = np.zeros((64, 96, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[:32, :, 3] = 255
    pixels[32:, :, 3] = 51
    image = load_photo(encode(Image.fromarray(pixels)), SIZE)
    torch.testing.assert_close(image[0, :, 5, 5], torch.tensor([1., 0, 0]))
    torch.testing.assert_close(image[0, :, 60, 5], torch.tensor([1., 0.8, 0.8]))


def test_transparent_palette_colour_is_white():
    picture = Image.fromarray(QUARTERS).convert('P', palette=Image.Palette.ADAPTIVE)
    red = picture.getpixel((0, 0))
    image = load_photo(encode(picture, transparency=red), SIZE)
    expected = UPRIGHT.clone()
    expected[0, 0] = 1
    torch.testing.assert_close(quarters(image), expected, atol=0.01, rtol=0)


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_sixteen_bit_values_are_exact_within_one_level_of_eight(channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (*SIZE, channels), dtype=np.uint16)
    pixels[..., 3:] = 65535
    image = load_photo(png16(pixels[..., 0] if channels == 1 else pixels), SIZE)
    expected = torch.from_numpy(pixels[..., :3] / 65535).float().permute(2, 0, 1)
    assert (image[0] - expected).abs().max() <= 1 / 255


@pytest.mark.parametrize('shape', [(400, 100), (100, 400), (64, 64), (129, 191)])
def test_photos_are_cropped_around_their_centre_and_never_squashed(shape):
    height, width = shape
    y, x = np.mgrid[:height, :width]
    side = min(height, width)
    disc = (x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2 < (0.2 * side) ** 2
    image = load_photo((disc * 255).astype(np.uint8), (96, 96))[0, 0]
    mass = image / image.sum()
    grid = torch.arange(96) - 47.5
    by_row, by_column = mass.sum(1), mass.sum(0)
    assert abs((by_row * grid).sum()) < 0.6
    assert abs((by_column * grid).sum()) < 0.6
    # A disc stays round.
    spread = (by_row * grid ** 2).sum().sqrt() / (by_column * grid ** 2).sum().sqrt()
    assert abs(spread - 1) < 0.05


def test_shrinking_averages_so_that_fine_patterns_turn_grey():
    stripes = np.zeros((256, 384), np.uint8)
    stripes[:, ::2] = 255
    image = load_photo(stripes, SIZE)
    torch.testing.assert_close(image, torch.full_like(image, 0.5), atol=0.01, rtol=0)


def test_twelve_megapixels_load():
    pixels = np.zeros((3000, 4000, 3), np.uint8)
    pixels[:1500] = 200
    image = load_photo(encode(Image.fromarray(pixels), 'JPEG'))
    assert image.shape == (1, 3, 160, 256)
    torch.testing.assert_close(image.mean(), torch.tensor(100 / 255), atol=0.01, rtol=0)


def jpeg() -> bytes:
    return encode(Image.fromarray(np.random.default_rng(0).integers(
        0, 255, (200, 300, 3), dtype=np.uint8)), 'JPEG')


@pytest.mark.parametrize(('source', 'advice'), [
    pytest.param(b'', 'empty', id='empty'),
    pytest.param(b'Dear diary, ' * 50, 'not an image', id='text'),
    pytest.param(jpeg()[:4000], 'corrupt or cut short', id='truncated'),
    pytest.param(png16(QUARTERS.astype(np.uint16))[:200], 'corrupt or cut short', id='cut-png'),
    pytest.param(np.zeros((63, 500, 3), np.uint8), 'at least 64', id='small'),
    pytest.param(np.zeros((100, 100, 2), np.uint8), '1, 3 or 4 channels', id='channels'),
    pytest.param(np.full((100, 100), np.nan), r'scale it to \[0, 1\]', id='nan'),
    pytest.param(np.full((100, 100), 200.0), r'scale it to \[0, 1\]', id='float-255'),
    pytest.param(np.zeros((100, 100), np.int64), 'uint8, uint16', id='int64'),
    pytest.param(12, 'give a path', id='number'),
])
def test_unusable_photos_are_refused_with_advice(source, advice):
    with pytest.raises(ValueError, match=advice):
        load_photo(source)


def test_unusable_paths_are_refused_with_advice(tmp_path):
    with pytest.raises(ValueError, match='does not exist'):
        load_photo(tmp_path / 'no.jpg')
    with pytest.raises(ValueError, match='is a folder'):
        load_photo(tmp_path)
    empty = tmp_path / 'empty.jpg'
    empty.touch()
    with pytest.raises(ValueError, match='is empty'):
        load_photo(empty)


@pytest.mark.parametrize('side', [12_000, 20_000])
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_decompression_bombs_are_refused(side):
    bomb = bytearray(png16(np.zeros((1, 1), np.uint16)))
    header = struct.pack('>IIBBBBB', side, side, 16, 0, 0, 0, 0)
    bomb[16:29] = header
    bomb[29:33] = struct.pack('>I', zlib.crc32(b'IHDR' + header))
    with pytest.raises(ValueError, match='scale it down'):
        load_photo(bytes(bomb))


@pytest.mark.parametrize('size', [(160, 250), (0, 256), (-32, 32), (100, 256)])
def test_sizes_must_divide_by_32(size):
    with pytest.raises(ValueError, match='multiples of 32'):
        load_photo(QUARTERS, size)


def test_sample_photos_load_and_are_credited_as_free():
    samples = sample_photos()
    with (Path(default_photo()).parent / 'credits.csv').open() as file:
        credits_by_file = {row['file']: row for row in csv.DictReader(file)}
    assert len(samples) == 5
    assert default_photo() in samples.values()
    assert {path.name for path in samples.values()} == set(credits_by_file)
    for row in credits_by_file.values():
        assert row['licence'] in ('public-domain', 'CC0')
        assert row['author']
        assert row['source']
    for path in samples.values():
        assert path.stat().st_size < 250_000
        assert load_photo(path).std() > 0.05


@pytest.mark.parametrize(('source_size', 'size'), [((80, 200), (64, 96)), ((300, 100), (64, 64))])
def test_intrinsics_are_cropped_as_the_photo_is(source_size, size):
    # A picture whose colours are the coordinates of its pixels shows where the crop has put them.
    rows, columns = np.indices(source_size, dtype=np.float32) + 0.5
    seen = [np.asarray(photos.crop_and_resize(Image.fromarray(values), *size))
            for values in (columns / source_size[1], rows / source_size[0])]
    given = torch.tensor([[0.8, 1.1, 0.45, 0.6]])
    fx, fy, cx, cy = photos.crop_intrinsics(given, source_size, size)[0].tolist()
    y, x = 20, 40
    assert (seen[0][y, x] - 0.45) / 0.8 == pytest.approx(((x + 0.5) / size[1] - cx) / fx, abs=5e-3)
    assert (seen[1][y, x] - 0.6) / 1.1 == pytest.approx(((y + 0.5) / size[0] - cy) / fy, abs=5e-3)
