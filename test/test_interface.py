"""What the running nodes offer is what the README's tables name: no more, no less, all alive."""

from __future__ import annotations

from collections.abc import Iterator
import importlib.util
import os
from pathlib import Path
import re
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import pytest
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.serialization import serialize_message
from ros_probe import isolated_ros, make_photo, Probe, SIZE
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger

import infinite_nature_ros
from infinite_nature_ros.commands.processes import NodeProcess
from infinite_nature_ros.nodes.frame_publisher import TOPICS
from infinite_nature_ros.nodes.parameters import AUTOPILOT_PARAMETERS, GENERATOR_PARAMETERS

ROOT = Path(infinite_nature_ros.__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()
TABLES = {'generator': GENERATOR_PARAMETERS, 'autopilot': AUTOPILOT_PARAMETERS}

# What rclpy gives every node or lifecycle node.
RCLPY_TOPICS = {'/rosout', '/parameter_events', '~/transition_event', '/clock'}
RCLPY_PARAMETERS = {'use_sim_time', 'start_type_description_service'}


class Graph(Probe):
    """A probe that knows what the nodes, which run as processes, offer."""

    def offers(self, node: str) -> dict[str, set[tuple[str, str]]]:
        """Names and types by kind, but for what rclpy makes."""
        own = '/infinite_nature'
        kinds = {'published': self.get_publisher_names_and_types_by_node,
                 'subscribed': self.get_subscriber_names_and_types_by_node,
                 'services': self.get_service_names_and_types_by_node}
        return {kind: {(self._short(name, node), types[0].replace('/msg/', '/').replace(
                            '/srv/', '/')) for name, types in get(node, own)}
                for kind, get in kinds.items()}

    def _short(self, name: str, node: str) -> str:
        private = f'/infinite_nature/{node}/'
        if name.startswith(private):
            return f'~/{name.removeprefix(private)}'
        return name.removeprefix('/infinite_nature/')

    def parameters(self, node: str) -> dict[str, Any]:
        """Descriptors of all parameters by name."""
        names = self.call(ListParameters, f'{node}/list_parameters').result.names
        described = self.call(DescribeParameters, f'{node}/describe_parameters', names=names)
        return {descriptor.name: descriptor for descriptor in described.descriptors}


@pytest.fixture(scope='module')
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp('nodes')
    photo = make_photo(folder / 'coast.png')
    with isolated_ros():
        os.environ['PYTHONPATH'] = os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get('PYTHONPATH', '')]))
        nodes = [
            NodeProcess('infinite_nature_ros.nodes.generator_node',
                        {'image': photo, 'publish_clock': True, **SIZE}, folder / 'generator.log'),
            NodeProcess('infinite_nature_ros.nodes.autopilot_node', {}, folder / 'autopilot.log')]
        graph = Graph()
        for topic, kind in {**TOPICS, '/clock': Clock}.items():
            graph.create_subscription(kind, topic, graph.received[f'also {topic}'].append, 10)
        graph.wait_for_frames(5)
        graph.spin_until(lambda: graph.received['/diagnostics'])
        graph.spin_until(lambda: set(TABLES) <= set(graph.get_node_names()))
        yield graph
        for node in nodes:
            node.stop()
        graph.destroy_node()


def rows(node: str, header: str) -> list[list[str]]:
    """Cells of a node's tables in the README, those whose first column is called so."""
    section = README.split(f'### {node.capitalize()}\n')[1].split('\n#')[0]
    tables = re.findall(r'^\|(.*)\|\n\|[-|]+\|\n((?:\|.*\n)+)', section, re.MULTILINE)
    chosen = [body for head, body in tables if head.split('|')[0].strip() == header]
    assert chosen, f'{node} has no table of {header}'
    return [[cell.strip() for cell in line.strip('|').split(' | ')]
            for body in chosen for line in body.splitlines()]


def named(node: str, header: str, meaning: str = '') -> set[tuple[str, str]]:
    """Names and types that a node's tables give, of rows whose meaning starts so."""
    found = set()
    for names, kind, said in rows(node, header):
        for name in re.findall(r'`([^`]+)`', names):
            kind_here = TYPES_AS_ABOVE[name] if kind == 'as above' else kind
            if said.startswith(meaning):
                found.add((name, kind_here))
    return found


TYPES_AS_ABOVE: dict[str, str] = dict(named('generator', 'published topic'))


def without_rclpy(offered: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(name, kind) for name, kind in offered if name not in RCLPY_TOPICS}


def test_generator_offers_what_its_tables_name(graph: Graph) -> None:
    offers = graph.offers('generator')
    published = named('generator', 'published topic')
    if not importlib.util.find_spec('tf2_msgs'):
        published -= {(name, 'tf2_msgs/TFMessage') for name in ('/tf', '/tf_static')}
    assert ('/clock', 'rosgraph_msgs/Clock') in offers['published'] & published
    assert without_rclpy(offers['published']) == without_rclpy(published)
    assert without_rclpy(offers['subscribed']) == named('generator', 'subscribed topic')
    own = {(name, kind) for name, kind in offers['services'] if kind.startswith('std_srvs')}
    assert own == named('generator', 'service')


def test_autopilot_offers_what_its_tables_name(graph: Graph) -> None:
    offers = graph.offers('autopilot')
    for kind in ('published', 'subscribed'):
        assert without_rclpy(offers[kind]) == named('autopilot', 'topic', kind)
    assert not [kind for _, kind in offers['services'] if kind.startswith('std_srvs')]


@pytest.mark.parametrize('node', TABLES)
def test_services_beyond_the_tables_are_rclpys(graph: Graph, node: str) -> None:
    kinds = {kind.split('/')[0] for _, kind in graph.offers(node)['services']}
    assert kinds <= {'std_srvs', 'rcl_interfaces', 'lifecycle_msgs', 'type_description_interfaces'}


@pytest.mark.parametrize('node', TABLES)
def test_parameters_are_what_the_table_names(graph: Graph, node: str) -> None:
    described = graph.parameters(node)
    own = {name for name in described if not name.startswith('qos_overrides.')}
    in_readme = {cells[0].strip('| `'): cells for cells in rows(node, 'parameter')}
    assert own - RCLPY_PARAMETERS == set(in_readme)
    values = graph.call(GetParameters, f'{node}/get_parameters', names=sorted(own)).values
    assert all(value.type != ParameterType.PARAMETER_NOT_SET for value in values)
    for name, cells in in_readme.items():
        descriptor, meaning = described[name], ' | '.join(cells[2:])
        assert meaning.startswith(descriptor.description)
        assert ('can be set in flight' in meaning) != descriptor.read_only
        for limits in (*descriptor.floating_point_range, *descriptor.integer_range):
            assert f'; {limits.from_value:.10g} to {limits.to_value:.10g}' in meaning


@pytest.mark.parametrize('node', TABLES)
def test_all_topics_take_qos_overrides(graph: Graph, node: str) -> None:
    overridden = {tuple(name.split('.')[1:3]) for name in graph.parameters(node)
                  if name.startswith('qos_overrides.')}
    offers = graph.offers(node)
    expected = {
        (topic if topic.startswith('/') else f'/infinite_nature/{topic}', role)
        for kind, role in (('published', 'publisher'), ('subscribed', 'subscription'))
        for topic, _ in offers[kind]
        if topic not in RCLPY_TOPICS or (topic, role) == ('/clock', 'publisher')}
    assert overridden == expected


def test_every_published_topic_has_something_to_say(graph: Graph) -> None:
    graph.spin_until(lambda: all(graph.received[f'also {topic}'] for topic in TOPICS))
    for topic in TOPICS:
        message = graph.received[f'also {topic}'][-1]
        assert len(serialize_message(message)) > 60
    clocks = [clock.clock for clock in graph.received['also /clock']]
    stamps = [(clock.sec, clock.nanosec) for clock in clocks]
    assert stamps == sorted(stamps)
    assert set(graph.stamps('pose')) & set(stamps)


def test_services_answer(graph: Graph) -> None:
    assert graph.call(SetBool, 'generator/pause', data=True).success
    graph.send((0.1, 0.0, 0.0))
    graph.spin_until(lambda: graph.call(Trigger, 'generator/step').success)
    assert graph.call(SetBool, 'generator/pause', data=False).success
    assert graph.call(Trigger, 'generator/reset').success
    graph.spin_until(lambda: len(graph.received['path'][-1].poses) < 5)


def test_diagnostics_tell_rate_times_holes_and_drift(graph: Graph) -> None:
    def values() -> dict[str, str]:
        last: DiagnosticArray = graph.received['/diagnostics'][-1]
        return {value.key: value.value for value in last.status[0].values}

    graph.spin_until(lambda: float(values()['rate (1/s)']) > 0 and int(values()['steps']) > 3)
    told = values()
    assert graph.received['/diagnostics'][-1].status[0].name == (
        'infinite_nature/generator: flight')
    assert {'render (ms)', 'refine (ms)', 'ground (ms)', 'publish (ms)', 'sub-steps'} <= set(told)
    assert 0 <= float(told['invented (%)']) < 60
    assert float(told['sharpness ratio']) > 0
    assert float(told['disparity median ratio']) > 0
