"""Jobs for the tests of parallel.py, in a module that is imported in no time."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import threading


class OddError(Exception):
    """Can't be unpickled: its constructor wants two arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def work(job: str) -> object:
    """Do what a word says."""
    if job == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 'exit':
        os._exit(3)
    if job == 'raise':
        raise FileNotFoundError(2, 'gone', 'a.txt')
    if job == 'odd':
        raise OddError('o', 'dd')
    if job == 'unsendable':
        return threading.Lock()
    return f'{job} is done'.encode()


def multiply(seed: int) -> tuple[object, ...]:
    """Bytes that differ in their last bits with the number of threads, and those numbers."""
    import cv2
    import torch

    torch.manual_seed(seed)
    product = torch.randn(64, 300).matmul(torch.randn(300, 64))
    return product.numpy().tobytes(), torch.get_num_threads(), cv2.getNumThreads()


def linger(path: str) -> None:
    """Say by a file who works, and never end."""
    Path(path).write_text(str(os.getpid()))
    threading.Event().wait()
