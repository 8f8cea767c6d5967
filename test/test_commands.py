"""``infinite-nature``: help of all subcommands, and ``info`` where things are missing."""

from __future__ import annotations

import functools
import os
from pathlib import Path
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import tyro

import infinite_nature_ros
from infinite_nature_ros import commands
from infinite_nature_ros.commands import main

ROOT = Path(infinite_nature_ros.__file__).parents[1]

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f'No module named {name!r}')
sys.meta_path.insert(0, Missing())
from infinite_nature_ros.commands import main
sys.exit(main(['info']))
"""
SECTIONS = ('libraries', 'ROS 2', 'devices', 'rendering backends', 'models', 'disparity sources',
            'optional')
ROS = ('rclpy', 'diagnostic_msgs', 'geometry_msgs', 'nav_msgs', 'sensor_msgs', 'std_msgs',
       'std_srvs')


def sections_of(report: str) -> dict[str, dict[str, str]]:
    """Title to rows, name to value."""
    blocks = [block.splitlines() for block in f'\n{report}'.split('\n\n')]
    return {title: dict(row.strip().split('  ', 1) for row in rows) for title, *rows in blocks}


def info_without(*modules: str) -> dict[str, dict[str, str]]:
    """Sections of ``info`` where modules can't be imported."""
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT, *modules], capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            filter(None, [os.environ.get('PYTHONPATH'), str(ROOT)]))})
    assert done.returncode == 0, done.stderr
    return sections_of(done.stdout)


@pytest.mark.parametrize('name', commands._COMMANDS)
def test_every_subcommand_has_an_example_that_is_understood(
        name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, '--help'])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    examples = [line.partition(' ')[2] for line in text.splitlines()
                if line.startswith('Example: ')]
    assert examples, f'infinite-nature {name} --help has no line "Example: infinite-nature ..."'
    for example in examples:
        program, *arguments = shlex.split(example)
        assert (program, arguments[0]) == ('infinite-nature', name)
        called = functools.wraps(commands._COMMANDS[name])(lambda *_, **__: 'called')
        assert tyro.extras.subcommand_cli_from_dict(
            {name: called, 'other': lambda: None}, args=arguments) == 'called'


def test_info_tells_versions_and_what_there_is(capsys: pytest.CaptureFixture) -> None:
    assert main(['info']) == 0
    sections = sections_of(capsys.readouterr().out)
    assert set(sections) == {'', *SECTIONS}
    assert sections['']['python'].strip().startswith('.'.join(map(str, sys.version_info[:3])))
    assert sections['libraries']['torch'].strip() == torch.__version__
    assert not [row for row in sections['libraries'].items() if 'MISSING' in row[1]]
    assert {'warp', 'torch', 'pytorch3d'} <= set(sections['rendering backends'])
    assert 'ready, the default' in sections['models']['inpaint']
    assert 'needs weights' in sections['models']['infinite-nature']
    assert {'horizon', 'file'} <= set(sections['disparity sources'])
    assert 'cpu' in sections['devices']


def test_info_works_without_ros() -> None:
    sections = info_without(*ROS, 'tf2_msgs')
    for module in (*ROS, 'middleware'):
        assert 'MISSING: No module named' in sections['ROS 2'][module]
    assert 'MISSING' in sections['optional']['tf2_msgs']
    assert 'ready' in sections['models']['inpaint']
    assert sections['rendering backends']['torch'].strip() == 'installed'


def test_info_works_without_torch() -> None:
    sections = info_without('torch')
    assert set(sections) == {'', *SECTIONS}
    assert "MISSING: No module named 'torch'" in sections['libraries']['torch']
    for title in ('devices', 'rendering backends', 'models', 'disparity sources'):
        assert sections[title] == {'unknown': "No module named 'torch'"}
    assert 'MISSING' not in sections['ROS 2']['rclpy']


def test_info_says_how_to_install_a_backend() -> None:
    sections = info_without('warp', 'pytorch3d')
    assert "No module named 'warp'" in sections['rendering backends']['warp']
    assert 'pip install "git+https' in sections['rendering backends']['pytorch3d']
    assert sections['rendering backends']['torch'].strip() == 'installed'


def test_info_lists_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    gpu = SimpleNamespace(name='NVIDIA H200', total_memory=141 * 2**30)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda number: gpu)
    main(['info'])
    devices = sections_of(capsys.readouterr().out)['devices']
    assert list(devices) == ['cpu', 'cuda:0', 'cuda:1']
    assert devices['cuda:1'] == 'NVIDIA H200, 141 GiB'


def test_info_says_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError('Found no NVIDIA driver on your system.\nPlease check ...')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'init', fail)
    monkeypatch.setattr(torch.version, 'cuda', '12.8')
    main(['info'])
    assert (sections_of(capsys.readouterr().out)['devices']['cuda']
            == 'MISSING: RuntimeError Found no NVIDIA driver on your system.')
    monkeypatch.setattr(torch.version, 'cuda', None)
    main(['info'])
    assert 'is built without CUDA' in sections_of(capsys.readouterr().out)['devices']['cuda']


def test_a_missing_library_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture) -> None:
    for name in [name for name in sys.modules if name.startswith('infinite_nature_training')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'rosbags', None)
    assert main(['bag', 'check', 'clips']) == 1
    line, = capsys.readouterr().err.splitlines()
    assert "pip install 'infinite_nature_ros[data]'" in line
