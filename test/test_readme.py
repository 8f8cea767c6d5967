"""The README's tables name all that exists, with the defaults that it has."""

from pathlib import Path

import pytest

from infinite_nature_ros.nodes.frame_publisher import TOPICS
from infinite_nature_ros.nodes.parameters import (
    AUTOPILOT_PARAMETERS,
    GENERATOR_PARAMETERS,
    Parameter,
)
from infinite_nature_ros.nodes.recorder_node import RECORDER_PARAMETERS

README = (Path(__file__).parent.parent / 'README.md').read_text()


@pytest.mark.parametrize('parameter',
                         GENERATOR_PARAMETERS + AUTOPILOT_PARAMETERS + RECORDER_PARAMETERS,
                         ids=lambda parameter: parameter.name)
def test_parameters_stand_in_the_readme(parameter: Parameter) -> None:
    default = parameter.default
    shown = {True: 'true', False: 'false'}[default] if isinstance(default, bool) else default
    row = f"| `{parameter.name}` | `{shown if shown != '' else repr('')}` | {parameter.description}"
    assert row in README


@pytest.mark.parametrize('topic', TOPICS)
def test_topics_stand_in_the_readme(topic: str) -> None:
    assert f'| `{topic}` | ' in README
