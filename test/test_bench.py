"""The benchmark's table: what stands in it, and that it measures what runs here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import sys
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE'):
        monkeypatch.setenv(name, 'restored afterwards')
        monkeypatch.delenv(name)
    import run
    yield run
    sys.modules.pop('run')


def test_ratios_are_to_the_first_of_the_same_part_and_device(bench: ModuleType) -> None:
    rows = [bench.Row('render', 'warp', 'cpu', [0.001, 0.002, 0.003]),
            bench.Row('render', 'torch', 'cpu', [0.02] * 3),
            bench.Row('render', 'warp', 'cuda', [0.0005] * 3),
            bench.Row('refine', 'inpaint', 'cpu', [1.234] * 3)]
    lines = [[cell.strip() for cell in line.split('|')[1:-1]]
             for line in bench.table(rows).splitlines()]
    assert len({len(line) for line in lines}) == 1
    assert [line[3] for line in lines[2:]] == ['1', '20', '0.5', '1230']
    assert [line[4] for line in lines[2:]] == ['2', '20', '0.5', '1230']
    assert [line[5] for line in lines[2:]] == ['500', '50', '2000', '0.81']
    assert [line[6] for line in lines[2:]] == ['1', '20', '1', '1']


def test_calls_are_counted_without_the_first(bench: ModuleType) -> None:
    calls = []
    seconds = bench.measure(lambda: calls.append(len(calls)), 0.0, 'cpu')
    assert len(calls) == len(seconds) + 1 >= 4


def test_what_is_installed_is_measured(bench: ModuleType,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, 'HEIGHT', 64)
    monkeypatch.setattr(bench, 'WIDTH', 96)
    rows = list(bench.bench_render('cpu', 0.0))
    names = [row.name for row in rows]
    assert {'warp, forward', 'warp, forward and backward', 'torch, forward'} <= set(names)
    assert all(seconds > 0 for row in rows for seconds in row.seconds)
    monkeypatch.setattr(bench, 'list_models', lambda: ['inpaint'])
    parts = {row.part for row in bench.bench_flight('cpu', 0.0)}
    assert parts == {'refine', 'step and autopilot'}
    for row in bench.bench_nodes(0.2):
        assert row.part == 'node to node'
        assert len(row.seconds) >= 1
        assert min(row.seconds) > 0
