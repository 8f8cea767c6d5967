"""The package installs by pip and by colcon, and its metadata agree."""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = ('infinite-nature', 'generator_node', 'autopilot_node', 'recorder_node')


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """A copy, so that no build leaves anything in the tree under test."""
    copy = tmp_path_factory.mktemp('workspace') / 'infinite_nature_ros'
    names = ('infinite_nature_ros', 'training', 'launch', 'config', 'rviz', 'foxglove', 'resource')
    for name in names:
        shutil.copytree(ROOT / name, copy / name,
                        ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'package.xml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy / name)
    return copy


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          timeout=300, check=False, **options)
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def check_help(script, **options):
    assert script.read_text().splitlines()[0].startswith('#!')
    assert 'usage' in run(script, '--help', **options)


def test_pip_install_gives_working_commands(sources, tmp_path):
    target = tmp_path / 'installed'
    # Without --ignore-installed pip takes away what this environment has of the package.
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-build-isolation',
        '--ignore-installed', '--quiet', '--prefix', target, sources)
    library = next(target.glob('**/site-packages'))
    environment = {**os.environ, 'PYTHONPATH': str(library)}
    for name in COMMANDS:
        check_help(target / 'bin' / name, env=environment, cwd=tmp_path)
    assert (library / 'infinite_nature_training' / 'bags' / 'writer.py').exists()
    assert list((library / 'infinite_nature_ros' / 'assets' / 'photos').glob('*.jpg'))
    for name in ('crops.csv', 'published.csv', 'report.html.jinja'):
        assert (library / 'infinite_nature_training' / 'evaluation' / name).exists()
    share = target / 'share' / 'infinite_nature_ros'
    assert (share / 'launch' / 'fly.launch.py').exists()
    profile = 'fastdds_large_data.xml'
    assert (library / 'infinite_nature_ros' / 'assets' / profile).exists()
    assert (share / 'config' / profile).exists()


def test_colcon_build_gives_working_commands(sources, tmp_path):
    run(sys.executable, '-m', 'colcon', 'build', '--base-paths', sources, cwd=tmp_path)
    prefix = tmp_path / 'install' / 'infinite_nature_ros'
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    assert (index / 'infinite_nature_ros').exists()
    assert list(prefix.glob('**/site-packages/infinite_nature_training/bags/writer.py'))
    share = prefix / 'share' / 'infinite_nature_ros'
    assert (share / 'package.xml').exists()
    for folder, pattern in (('launch', '*.launch.py'), ('config', '*.yaml'),
                            ('rviz', '*.rviz'), ('foxglove', '*.json')):
        installed = {path.name for path in (share / folder).glob(pattern)}
        assert installed == {path.name for path in (ROOT / folder).glob(pattern)} != set()
    setup = tmp_path / 'install' / 'setup.sh'
    for name in COMMANDS:
        script = prefix / 'lib' / 'infinite_nature_ros' / name
        # The interpreter of the active environment, where torch is, and not that of the build.
        assert script.read_text().splitlines()[0] == '#!/usr/bin/env python3'
        path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
        output = run('sh', '-c', f'. {setup} && {script} --help', cwd=tmp_path,
                     env={**os.environ, 'PATH': path})
        assert 'usage' in output


def test_package_xml_and_setup_agree():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert package.get('format') == '3'
    assert package.findtext('export/build_type') == 'ament_python'
    text = (ROOT / 'setup.py').read_text()
    assert f"version='{package.findtext('version')}'" in text
    assert f"license='{package.findtext('license')}'" in text
    on_pip = {line.split('==')[0] for line in text.split("'") if line.startswith('ros-')}
    wanted = {f'ros-{name.text}'.replace('_', '-') for name in package.findall('exec_depend')}
    missing = {name for name in on_pip if name.removesuffix('[fastrtps]') not in wanted}
    assert not missing, f'{missing} are in setup.py but not in package.xml'


def test_container_and_readme_bring_what_setup_requires():
    """What the distribution has comes from there (package.xml), the rest from pip."""
    text = (ROOT / 'setup.py').read_text()
    required = set(re.findall(r"^        '([\w-]+)[>=\[]", text.partition('install_requires')[2]
                              .partition('extras_require')[0], re.MULTILINE))
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    distribution = {key.text.removeprefix('python3-') for key in package.findall('exec_depend')}
    names = {'opencv-python-headless': 'opencv', 'pillow': 'pil'}
    from_pip = {name for name in required if names.get(name, name) not in distribution}
    assert {'torch', 'warp-lang', 'tyro'} <= from_pip
    for place in ('Dockerfile', 'README.md'):
        lines = (ROOT / place).read_text().replace('\\\n', ' ').splitlines()
        installed = ' '.join(line for line in lines if 'pip install' in line)
        missing = {name for name in from_pip if not re.search(rf"[ ']{name}\b", installed)}
        assert not missing, f'{place} does not install {missing}'
