"""OpenVINO as the runtime of a network on the CPU: the same weights, faster code, no gradients."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
import threading
from typing import Any

import torch
from torch import nn, Tensor

PRECISIONS = ('f32', 'bf16')
"""In which numbers OpenVINO may compute."""


class OpenVinoRuntime:
    """Compiles a network for every shape of its inputs as it comes, and keeps what it compiled.

    Compiling takes about half a second, so it is for networks whose weights stay; when they have
    changed it compiles anew. Copies and pickles start without what was compiled.
    """

    def __init__(self) -> None:
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self._weights: tuple[Any, ...] = ()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Give nothing to copies: a compiled network belongs to its process."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start empty."""
        self.__init__()

    def run(self, network: nn.Module, *inputs: Tensor, precision: str = 'f32') -> Tensor:
        """Call a network.

        Args:
            network: one whose only output is a tensor and whose operations don't depend on values;
                the same in every call.
            inputs: float32, on the CPU.
            precision: one of ``PRECISIONS``. In bf16, about twice as fast on processors that have
                it, values keep 8 bits.

        Returns:
            What ``network(*inputs)`` is; in f32 they differ by rounding.

        Raises:
            ValueError: for another precision.
        """
        if precision not in PRECISIONS:
            raise ValueError(f'precision is {precision!r}; give one of {PRECISIONS}')
        threads = torch.get_num_threads()
        key = (precision, threads, *(value.shape for value in inputs))
        # One request at a time: a compiled network's buffers are its own.
        with self._lock:
            weights = _fingerprint(network)
            if weights != self._weights:
                self._compiled, self._weights = {}, weights
            if key not in self._compiled:
                self._compiled[key] = _compile(network, inputs, precision, threads)
            arrays = [value.contiguous().numpy() for value in inputs]
            (result,) = self._compiled[key](arrays, share_inputs=True).values()
        return torch.from_numpy(result)


@cache
def has_openvino() -> bool:
    """Whether OpenVINO, which is optional, is installed with what reads PyTorch's networks."""
    return find_spec('openvino') is not None and find_spec('openvino.frontend.pytorch') is not None


def fits_openvino(network: nn.Module, *inputs: Tensor) -> bool:
    """Whether a call is one that the runtime is for: a finished network on the CPU, no gradients.

    Args:
        network: in eval mode when it is finished.
        inputs: as it is to be called with.
    """
    return (not network.training and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled('cpu')
            and all(value.device.type == 'cpu' and value.dtype == torch.float32
                    for value in (*inputs, *network.parameters()))
            and has_openvino())


def _fingerprint(network: nn.Module) -> tuple[Any, ...]:
    """Tell weights that were replaced, or changed in place, from those before."""
    return tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version)
                 for weight in network.parameters())


def _compile(network: nn.Module, inputs: tuple[Tensor, ...], precision: str,
             threads: int) -> Any:
    """Compile for inputs of these shapes."""
    # Not openvino.convert_model, which takes twice as long and reports its use to a server.
    from openvino import Core, PartialShape, Type
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    traced = torch.jit.trace(network, inputs, check_trace=False)
    frontend = FrontEndManager().load_by_framework('pytorch')
    # Converting needs the decoder still, and loading alone wouldn't keep it.
    decoder = TorchScriptPythonDecoder(traced)
    model = frontend.convert(frontend.load(decoder))
    for port, value in zip(model.inputs, inputs, strict=True):
        port.get_node().set_element_type(Type.f32)
        port.get_node().set_partial_shape(PartialShape(list(value.shape)))
    model.validate_nodes_and_infer_types()
    return Core().compile_model(model, 'CPU', {
        'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': threads,
        'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': 1,
        # Several processes share the cores of a machine.
        'ENABLE_CPU_PINNING': False})
