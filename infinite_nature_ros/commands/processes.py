"""Nodes as child processes that end with their parent, on a ROS domain of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import random
import signal
import socket
import subprocess
import sys
from typing import Any

# Runs a module as ``python -m`` does, and has the kernel end it when its parent dies, even of
# kill -9 (prctl's PR_SET_PDEATHSIG is 1).
_RUN_BOUND_TO_PARENT = (
    'import ctypes, runpy, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); '
    'sys.argv[:] = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name="__main__", '
    'alter_sys=True)')

_STOP_SECONDS = 5
_ERROR_LINES = 3

# Ports of a domain (DDS-RTPS, 9.6.1.1): discovery, and those of its first 32 participants.
_FIRST_PORT, _PORTS_PER_DOMAIN, _USED_PORTS = 7400, 250, (0, *range(10, 74, 2))
_DOMAINS = range(1, 102)


def isolate_domain(candidates: Sequence[int] | None = None) -> str:
    """Choose a ROS domain that nobody uses and keep it on this machine.

    A domain that the user has set is left as it is.

    Args:
        candidates: domains to choose from, the first free one is taken; ``None``: all that Linux
            leaves free of its own ports, in random order.

    Returns:
        What to set in another terminal to listen in.

    Raises:
        OSError: if all domains are in use.
    """
    if 'ROS_DOMAIN_ID' not in os.environ:
        if candidates is None:
            candidates = random.sample(_DOMAINS, len(_DOMAINS))
        domain = next(filter(_is_free, candidates), None)
        if domain is None:
            raise OSError('no ROS domain is free on this machine; set ROS_DOMAIN_ID to use one '
                          'together with others')
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    return f'ROS_DOMAIN_ID={os.environ["ROS_DOMAIN_ID"]}'


def _is_free(domain: int) -> bool:
    """Whether no process on this machine listens to a domain."""
    for offset in _USED_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', _FIRST_PORT + _PORTS_PER_DOMAIN * domain + offset))
            except OSError:
                return False
    return True


class NodeProcess:
    """A node in a process of its own; its output goes to a log file."""

    def __init__(self, module: str, parameters: Mapping[str, Any], log: Path) -> None:
        """Start the node.

        Args:
            module: module of the node, run as ``python -m``.
            parameters: ROS parameters by name.
            log: file to write; what was there is lost.
        """
        self._module = module
        self._log = log
        # Quotes keep a file called 123 a string; JSON is YAML.
        settings = [part for name, value in parameters.items()
                    for part in ('-p', f'{name}:={json.dumps(value, ensure_ascii=False)}')]
        with log.open('wb') as output:
            # In a session of its own the node isn't hit by the terminal's Ctrl-C, so the parent
            # decides when it ends. It gets the whole environment: without the wheels' library
            # path rclpy can't be imported.
            self._process = subprocess.Popen(
                [sys.executable, '-c', _RUN_BOUND_TO_PARENT, module, '--ros-args', *settings],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True)

    @property
    def runs(self) -> bool:
        """Whether the node hasn't ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise ``ChildProcessError`` with the node's own words if it has ended."""
        if self.runs:
            return
        code = self._process.returncode
        reason = f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
        lines = self._log.read_text(errors='replace').strip().splitlines()
        words = [line for line in lines if 'error' in line.lower()] or lines
        raise ChildProcessError('\n'.join([
            f'{self._module.rpartition(".")[2]} ended with {reason} (log: {self._log})',
            *(f'  {line}' for line in words[-_ERROR_LINES:])]))

    def interrupt(self) -> None:
        """Ask the node to end, as Ctrl-C does."""
        if self.runs:
            self._process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Interrupt the node and wait for it; kill it if it doesn't end."""
        self.interrupt()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
