"""Launch files, parameter files and views name only what exists; run with stand-ins for launch.

No package of ``launch`` is on PyPI. The stand-ins do what the launch files need of it: arguments
with defaults, inclusion, groups that keep their arguments to themselves, conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import importlib.util
import json
from pathlib import Path
import re
import runpy
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from infinite_nature_ros.nodes.parameters import (
    AUTOPILOT_PARAMETERS,
    GENERATOR_PARAMETERS,
    Parameter,
)
from infinite_nature_ros.nodes.recorder_node import RECORDER_PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
TABLES = {'generator': GENERATOR_PARAMETERS, 'autopilot': AUTOPILOT_PARAMETERS,
          'recorder': RECORDER_PARAMETERS}
LAUNCH_FILES = sorted(path.name.partition('.')[0] for path in (ROOT / 'launch').iterdir())

TOPICS = dict(re.findall(r'^\| `([\w/]+)` \| (\w+/\w+) \|', README, re.MULTILINE))


def kind(name: str) -> Callable[..., SimpleNamespace]:
    """Stand-in for a class: keeps its arguments."""
    return lambda *content, **options: SimpleNamespace(
        kind=name, content=content, **{'condition': None, **options})


class Argument:
    """Stand-in for ``DeclareLaunchArgument``."""

    kind = 'argument'
    condition = None

    def __init__(self, name: str, *, default_value: str, description: str) -> None:
        assert description
        self.name, self.default = name, default_value


class Configuration:
    """Stand-in for ``LaunchConfiguration``; the context is a dict."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


@pytest.fixture(autouse=True)
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules = {
        'launch': {'LaunchDescription': kind('group'), 'LaunchContext': dict},
        'launch.actions': {'DeclareLaunchArgument': Argument, 'GroupAction': kind('scope'),
                           'IncludeLaunchDescription': kind('include'),
                           'OpaqueFunction': kind('function')},
        'launch.conditions': {'IfCondition': lambda value: value},
        'launch.launch_description_sources': {'PythonLaunchDescriptionSource': Path},
        'launch.substitutions': {'LaunchConfiguration': Configuration},
        'launch_ros': {}, 'launch_ros.actions': {'Node': kind('node')}}
    for name, content in modules.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))
    monkeypatch.setattr('ament_index_python.packages.get_package_share_directory',
                        lambda package: {'infinite_nature_ros': str(ROOT)}[package])
    monkeypatch.delitem(sys.modules, 'infinite_nature_ros.nodes.launching', raising=False)
    yield
    sys.modules.pop('infinite_nature_ros.nodes.launching', None)


def execute(action: Any, context: dict[str, str], arguments: dict[str, str]) -> list[Any]:
    """Nodes that an action starts; arguments that nobody gave are noted with their defaults."""
    if action.condition and action.condition.perform(context) != 'true':
        return []
    if action.kind == 'node':
        return [action]
    if action.kind == 'argument':
        if action.name not in context:
            context[action.name] = arguments[action.name] = action.default
        return []
    if action.kind == 'function':
        parts = action.function(context, *getattr(action, 'args', ()))
    elif action.kind == 'include':
        context.update(getattr(action, 'launch_arguments', ()))
        parts = [load(action.content[0])]
    else:
        parts, = action.content
        if action.kind == 'scope':
            context = dict(context)
    return [node for part in parts for node in execute(part, context, arguments)]


def load(path: Path) -> SimpleNamespace:
    return runpy.run_path(str(path))['generate_launch_description']()


def start(name: str, **given: str) -> list[SimpleNamespace]:
    """Nodes that a launch file starts with some arguments given."""
    return execute(load(ROOT / 'launch' / f'{name}.launch.py'), given, {})


def parameters_of(node: SimpleNamespace) -> dict[str, Any]:
    """What a node is started with, of all its files and what goes before them."""
    values = {}
    for source in node.parameters:
        if isinstance(source, str):
            tree = yaml.safe_load(Path(source).read_text())
            source = tree.get(f'/**/{node.name}', {}).get('ros__parameters', {})
        values.update(source)
    return values


def entry_points() -> dict[str, str]:
    """Modules of the executables."""
    text = (ROOT / 'setup.py').read_text().replace('{PACKAGE}', 'infinite_nature_ros')
    return dict(re.findall(r"f'(\w+) = ([\w.]+):main'", text))


def check(node: SimpleNamespace) -> None:
    """Check that a node of ours exists, with its parameters."""
    assert node.package == 'infinite_nature_ros'
    module = entry_points()[node.executable]
    assert importlib.util.find_spec(module)
    table = {parameter.name: parameter for parameter in TABLES[node.name]}
    values = parameters_of(node)
    assert isinstance(values.pop('use_sim_time'), bool)
    assert values.keys() == table.keys()
    for name, value in values.items():
        assert type(value) is type(table[name].default), name
        assert not table[name].problem(value)


def test_there_are_the_launch_files() -> None:
    assert LAUNCH_FILES == ['fly', 'generator', 'two_drones']


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_launch_files_start_what_exists(name: str) -> None:
    expected = {'generator': ['generator'], 'fly': ['generator', 'autopilot'],
                'two_drones': ['generator', 'autopilot'] * 2}
    nodes = start(name)
    assert [node.name for node in nodes] == expected[name]
    for node in nodes:
        check(node)
        assert parameters_of(node)['use_sim_time'] is False
        assert node.ros_arguments == ['--log-level', 'info']


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_arguments_stand_in_the_readme(name: str) -> None:
    arguments: dict[str, str] = {}
    execute(load(ROOT / 'launch' / f'{name}.launch.py'), {}, arguments)
    rows = dict(re.findall(r'^\| `(\w+)` \| `([^`]*)` \| [\w, ]*\b' + name + r'\b[\w, ]* \|',
                           README, re.MULTILINE))
    assert {argument: default or "''" for argument, default in arguments.items()} == rows


def test_arguments_go_before_parameter_files(tmp_path: Path) -> None:
    file = tmp_path / 'mine.yaml'
    file.write_text(yaml.safe_dump({
        '/**/generator': {'ros__parameters': {'image': 'lake', 'height': 96, 'model': 'tiny'}},
        '/**/autopilot': {'ros__parameters': {'speed': 0.1}}}))
    generator, autopilot = start('fly', params_file=str(file), model='inpaint', scene_scale='10',
                                 namespace='bird', use_sim_time='true', log_level='debug')
    check(generator)
    check(autopilot)
    flown = parameters_of(generator)
    assert (flown['image'], flown['height'], flown['model'], flown['scene_scale']) == (
        'lake', 96, 'inpaint', 10.0)
    piloted = parameters_of(autopilot)
    assert (piloted['speed'], piloted['scene_scale'], piloted['mode']) == (0.1, 10.0, 'safe')
    for node in (generator, autopilot):
        assert node.namespace == 'bird'
        assert parameters_of(node)['use_sim_time'] is True
        assert node.ros_arguments == ['--log-level', 'debug']


def test_recorder_and_rviz_on_demand() -> None:
    *_, recorder, rviz = start('fly', record='bag,video', folder='kept', rviz='true',
                               namespace='bird', frame_prefix='bird/')
    check(recorder)
    assert parameters_of(recorder)['record'] == 'bag,video'
    assert parameters_of(recorder)['folder'] == 'kept'
    assert (rviz.package, rviz.executable, rviz.namespace) == ('rviz2', 'rviz2', 'bird')
    option, config, fixed_frame, frame = rviz.arguments
    assert (option, fixed_frame, frame) == ('-d', '-f', 'bird/map')
    assert Path(config).is_file()


def test_two_drones_are_kept_apart() -> None:
    nodes = start('two_drones', image_drone1='lake', image_drone2='coast', record='bag',
                  model='inpaint')
    assert [(node.namespace, node.name) for node in nodes] == [
        (drone, name) for drone in ('drone1', 'drone2')
        for name in ('generator', 'autopilot', 'recorder')]
    for node in nodes:
        check(node)
    generators = [parameters_of(node) for node in nodes if node.name == 'generator']
    assert [values['image'] for values in generators] == ['lake', 'coast']
    assert [values['frame_prefix'] for values in generators] == ['drone1/', 'drone2/']
    assert [values['model'] for values in generators] == ['inpaint'] * 2
    folders = {parameters_of(node)['folder'] for node in nodes if node.name == 'recorder'}
    assert folders == {'flight/drone1', 'flight/drone2'}


@pytest.mark.parametrize('name', TABLES)
def test_parameter_files_name_what_exists(name: str) -> None:
    tree = yaml.safe_load((ROOT / 'config' / f'{name}.yaml').read_text())
    (node, content), = tree.items()
    assert node == f'/**/{name}'

    def plain(parameter: Parameter) -> Any:
        default = parameter.default
        return list(default) if isinstance(default, tuple) else default

    assert content['ros__parameters'] == {parameter.name: plain(parameter)
                                          for parameter in TABLES[name]}


def test_rviz_shows_topics_that_exist() -> None:
    view = yaml.safe_load((ROOT / 'rviz' / 'infinite_nature.rviz').read_text())
    displays = view['Visualization Manager']['Displays']
    shown = {display['Name']: (display['Topic']['Value'], display['Class'].partition('/')[2])
             for display in displays if 'Topic' in display}
    types = {'Image': 'sensor_msgs/Image', 'PointCloud2': 'sensor_msgs/PointCloud2',
             'Path': 'nav_msgs/Path', 'Odometry': 'nav_msgs/Odometry'}
    assert len(shown) >= 6
    for topic, display in shown.values():
        assert TOPICS[topic] == types[display], topic


def test_foxglove_shows_topics_that_exist() -> None:
    text = (ROOT / 'foxglove' / 'infinite_nature.json').read_text()
    layout = json.loads(text)
    topics = {topic.partition('.')[0] for topic in re.findall(r'"(/[\w/.]+)"', text)}
    assert len(topics) >= 6
    for topic in topics:
        short = topic.removeprefix('/infinite_nature/')
        assert short in TOPICS or topic in TOPICS, topic

    def panels(part: Any) -> set[str]:
        return {part} if isinstance(part, str) else panels(part['first']) | panels(part['second'])

    assert panels(layout['layout']) == layout['configById'].keys()
