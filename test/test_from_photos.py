"""``bag from-photos``: level bags of one frame, with credits; which photos are taken."""

from __future__ import annotations

from pathlib import Path
import shutil

from bag_contents import bags_in, contents, info_of, pictures_of
import numpy as np
import pytest

from infinite_nature_ros.commands import main
from infinite_nature_ros.flight import Flight
from infinite_nature_ros.photos import sample_photos
from infinite_nature_ros.pose_files import pose_of
from infinite_nature_training.bags import ClipError
from infinite_nature_training.sources.photos import (
    choose,
    find_photos,
    photo_jobs,
    PhotoOptions,
    read_credits,
)

CREDITS = ('file,path_in_package,size,author,licence,comment\n'
           'coast.jpg,/usr/coast@2x.jpg,1024x512,Ann,CC0,"From afar, cropped."\n'
           'far/lake.jpg,/usr/lake@2x.jpg,1024x512,Bob,CC-BY-SA-4.0,\n')


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two photos and a file that is none."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'far').mkdir()
    shutil.copy(sample_photos()['coast'], folder / 'coast.jpg')
    shutil.copy(sample_photos()['lake'], folder / 'far' / 'lake.jpg')
    (folder / 'broken.jpg').write_bytes(b'no photo')
    (folder / 'photos.csv').write_text(CREDITS)
    return folder


def test_photos_become_bags(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'bags'
    assert main(['bag', 'from-photos', str(photos), '--credits', str(photos / 'photos.csv'),
                 '--out', str(out), '--disparity', 'horizon', '--split', 'train',
                 '--height', '160', '--width', '256', '--workers', '1']) == 0
    assert list(bags_in(out)) == ['coast', 'far/lake']
    assert 'broken is skipped' in capsys.readouterr().err
    info = info_of(out / 'coast')
    assert (info.source, info.licence, info.split) == ('coast.jpg', 'CC0', 'train')
    assert info.details == {'author': 'Ann', 'comment': 'From afar, cropped.'}
    assert info_of(out / 'far' / 'lake').licence == 'CC-BY-SA-4.0'
    # As a flight into the photo starts.
    start = Flight.from_photo(photos / 'coast.jpg', disparity='horizon').start
    messages = contents(out / 'coast')
    assert {topic: len(found) for topic, found in messages.items()} == dict.fromkeys([
        'camera/image_raw/compressed', 'camera/camera_info', 'camera/disparity/image', 'pose',
        'clip_info', '/tf', '/tf_static'], 1)
    image, = pictures_of(out / 'coast')
    assert np.abs(image / 255 - start.image[0].permute(1, 2, 0).numpy()).mean() < 0.02
    disparity = messages['camera/disparity/image'][0].data.view('<f4').reshape(160, 256)
    # A flight counts what is far as sky; the bag says how far it is.
    far = (start.sky[0, 0] > 0.5).numpy()
    np.testing.assert_allclose(disparity[~far], start.disparity[0, 0].numpy()[~far], rtol=1e-5)
    assert 0.01 < disparity[far].max() < 0.03
    message = messages['pose'][0].pose
    pose = pose_of([message.position.x, message.position.y, message.position.z], [
        message.orientation.x, message.orientation.y, message.orientation.z,
        message.orientation.w])
    np.testing.assert_allclose(pose, start.pose, atol=1e-6)


def test_which_photos_are_taken(photos: Path, tmp_path: Path) -> None:
    names = find_photos(photos)
    assert list(names) == ['broken.jpg', 'coast.jpg', 'far/lake.jpg']
    assert choose(names) == list(names)
    assert choose(names, match=['far/*', 'c*']) == ['coast.jpg', 'far/lake.jpg']
    listed = tmp_path / 'names.txt'
    listed.write_text('coast.jpg\nbroken.jpg\n')
    assert choose(names, only=listed) == ['broken.jpg', 'coast.jpg']
    assert choose(names, leave_out=[listed]) == ['far/lake.jpg']
    with pytest.raises(ClipError, match='none of the 3 photos'):
        choose(names, match=['x*'])
    listed.write_text('sea.jpg\n')
    with pytest.raises(ClipError, match="lists 'sea.jpg', which is not among"):
        choose(names, leave_out=[listed])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ClipError, match='holds no photos'):
        find_photos(tmp_path / 'empty')


def test_licences_choose_photos(photos: Path) -> None:
    credits = read_credits(photos / 'photos.csv')
    found, options = find_photos(photos), PhotoOptions()
    jobs = photo_jobs(found, credits, options, licence='CC-BY-2.0', licences=['CC0'])
    assert [job.name for job in jobs] == ['coast']
    jobs = photo_jobs(found, credits, options, licence='CC-BY-2.0', licences=['CC-BY-2.0'])
    assert [job.name for job in jobs] == ['broken']
    with pytest.raises(ClipError, match='no photo has the licence MIT'):
        photo_jobs(found, credits, options, licences=['MIT'])


@pytest.mark.parametrize('text', ['', 'name,licence\na.jpg,CC0\n', 'file,author\na.jpg,Ann\n'])
def test_credits_without_their_columns_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / 'photos.csv').write_text(text)
    with pytest.raises(ClipError, match='give file and licence'):
        read_credits(tmp_path / 'photos.csv')
