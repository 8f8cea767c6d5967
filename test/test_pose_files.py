"""Pose files: written and read in both formats, and what a reader of either expects of them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, strategies
import numpy as np
import pytest
import torch
from transforms3d.quaternions import quat2mat

from infinite_nature_ros.camera import level_pose, position
from infinite_nature_ros.pose_files import pose_of, PoseFiles, read_poses

INTRINSICS = (0.8, 1.28, 0.5, 0.5)


def _write(folder: Path, count: int = 5) -> list[tuple[list[float], list[float]]]:
    random = np.random.default_rng(3)
    poses = [(random.normal(size=3).tolist(), (turn / np.linalg.norm(turn)).tolist())
             for turn in random.normal(size=(count, 4))]
    with PoseFiles(folder, 'my photo.jpg') as files:
        for number, (place, turn) in enumerate(poses):
            files.add(1_700_000_000_000_000_000 + number * 100_000_001, place, turn, INTRINSICS)
    return poses


def test_both_formats_read_back_exactly(tmp_path: Path) -> None:
    written = torch.cat([pose_of(*pose) for pose in _write(tmp_path)])
    assert torch.equal(read_poses(tmp_path / 'poses_tum.txt'), written)
    assert torch.equal(read_poses(tmp_path / 'poses_realestate10k.txt'), written)


def test_tum_columns(tmp_path: Path) -> None:
    poses = _write(tmp_path)
    rows = np.loadtxt(tmp_path / 'poses_tum.txt')
    assert rows.shape == (5, 8)
    assert rows[:, 1:].tolist() == [[*place, *turn] for place, turn in poses]
    second = (tmp_path / 'poses_tum.txt').read_text().splitlines()[2]
    assert second.split()[0] == '1700000000.100000001'


def test_realestate10k_columns(tmp_path: Path) -> None:
    poses = _write(tmp_path)
    title, *lines = (tmp_path / 'poses_realestate10k.txt').read_text().splitlines()
    assert title == 'my photo.jpg'
    rows = np.array([[float(word) for word in line.split()] for line in lines])
    assert rows.shape == (5, 19)
    assert rows[1, 0] == 1_700_000_000_100_000
    assert (rows[:, 1:7] == [*INTRINSICS, 0, 0]).all()
    for row, (place, (x, y, z, w)) in zip(rows, poses, strict=True):
        matrix = row[7:].reshape(3, 4)
        # The camera is at the origin of its own axes; its Z axis is the body's X axis.
        forward, left, up = place
        assert matrix @ [-left, -up, forward, 1] == pytest.approx(np.zeros(3), abs=1e-12)
        ahead = quat2mat([w, x, y, z])[:, 0]
        assert matrix[2, :3] == pytest.approx([-ahead[1], -ahead[2], ahead[0]])


def test_level_camera_that_looks_down() -> None:
    """Nose down by 0.4 radians is a turn about the body's Y axis (REP 103)."""
    down = pose_of((0, 0, 0), (0, np.sin(0.2), 0, np.cos(0.2)))
    assert torch.allclose(down, level_pose(0.4).double(), atol=1e-7)


@given(strategies.lists(strategies.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_position_is_kept(place: list[float]) -> None:
    x, y, z = position(pose_of(place, (0, 0, 0, 1)))[0].tolist()
    assert (z, -x, -y) == tuple(place)


def test_file_of_a_killed_writer(tmp_path: Path) -> None:
    _write(tmp_path)
    for name in ('poses_tum.txt', 'poses_realestate10k.txt'):
        whole = read_poses(tmp_path / name)
        text = (tmp_path / name).read_text()
        # Cut in a number, where the rest of the line still looks like one.
        (tmp_path / 'cut.txt').write_text(text[:-3])
        assert torch.equal(read_poses(tmp_path / 'cut.txt'), whole[:4])


def test_comments_and_files_of_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / 'poses.txt'
    path.write_text('# made by hand\n\n1 2 3 4 0 0 0 2\n')
    assert position(read_poses(path)).tolist() == [[-3.0, -4.0, 2.0]]
    row = '81372956 0.5 0.9 0.5 0.5 0 0 1 0 0 0.1 0 1 0 0.2 0 0 1 0.3\n'
    for title in ('https://example.com/watch?v=1\n', ''):
        path.write_text(title + row)
        assert read_poses(path)[0, :, 3].tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(('text', 'problem'), [
    ('', 'holds no pose'), ('# nothing\n', 'holds no pose'),
    ('1 2 3 4 0 0 0 1\n1 2 3 4 0 0 0\n', 'line 2: it has 7 columns'),
    ('1 2 3 4 0 0 0 0\n', 'zero quaternion'), ('1 2 nan 4 0 0 0 1\n', 'finite'),
    ('1 2 x 4 0 0 0 1\n', "'x'"), ('a flight\n', '8 columns'),
    ('video\n1 1 1 .5 .5 0 0 2 0 0 0 0 1 0 0 0 0 1 0\n', 'line 2: .* not orthonormal')])
def test_bad_files_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / 'poses.txt'
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_poses(path)
