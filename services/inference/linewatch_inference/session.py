# SPDX-License-Identifier: Apache-2.0
"""One ONNX Runtime session, and which provider really runs it: providers fall back to the CPU without a word."""

import enum
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from linewatch_inference.errors import ModelFault, PackageRefused

CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3

Tensors = dict[str, NDArray[np.generic]]

NUMPY_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
"""ONNX Runtime's words for the types that a package may use."""


class ProviderPolicy(enum.StrEnum):
    """What happens when the first provider asked for does not run the model."""

    STRICT = "strict"
    DEGRADE = "degrade"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How sessions are made. Threads are per call; workers multiply with them."""

    providers: Sequence[str] = (CPU,)
    policy: ProviderPolicy = ProviderPolicy.STRICT
    intra_op_threads: int = 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the graph; -1 is a free dimension."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


class Session:
    """A loaded graph. `run` may be called from several threads at once."""

    def __init__(self, model: bytes, options: SessionOptions) -> None:
        """Loads the graph from memory: there is no directory that it could read beside itself.

        Raises:
            PackageRefused: the graph can't be loaded, or (strict) not by the provider asked for.
        """
        asked = options.providers[0]
        available = [name for name in options.providers if name in onnxruntime.get_available_providers()]
        if asked not in available and options.policy is ProviderPolicy.STRICT:
            raise PackageRefused(
                f"{asked} is not in this ONNX Runtime ({', '.join(onnxruntime.get_available_providers())});"
                " install a build that has it, or allow INFERENCE_PROVIDER_POLICY=degrade"
            )
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.intra_op_threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _ERRORS_ONLY
        # A spinning pool burns both cores for nothing: 2 threads cost 2x the CPU time and were no faster here.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self._session = onnxruntime.InferenceSession(model, settings, providers=available or [CPU])
        except Exception as error:  # ONNX Runtime's errors have no common class below Exception
            raise PackageRefused(f"ONNX Runtime can't load the graph: {error}") from error
        self.provider = self._provider_that_runs()
        if self.provider != asked and options.policy is ProviderPolicy.STRICT:
            raise PackageRefused(
                f"{asked} was asked for, but {self.provider} runs the graph; see the log above"
            )
        self.inputs = _tensors(self._session.get_inputs())
        self.outputs = _tensors(self._session.get_outputs())

    def run(self, feeds: Tensors, names: Sequence[str]) -> Tensors:
        """The named outputs. Raises ModelFault when the graph fails."""
        try:
            values = self._session.run(list(names), feeds)
        except Exception as error:  # as above
            raise ModelFault(f"the graph failed: {error}") from error
        return dict(zip(names, values, strict=True))

    def _provider_that_runs(self) -> str:
        """The provider that got most of the graph's nodes."""
        nodes: Counter[str] = Counter()
        for part in self._session.get_provider_graph_assignment_info():
            nodes[part.ep_name] += len(part.get_nodes())
        return nodes.most_common(1)[0][0] if nodes else str(self._session.get_providers()[0])


def _tensors(arguments: Sequence[onnxruntime.NodeArg]) -> dict[str, Tensor]:
    found = {}
    for argument in arguments:
        if argument.type not in NUMPY_TYPES:
            raise PackageRefused(f"{argument.name}: {argument.type} is not supported; use a numeric tensor")
        shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
        found[argument.name] = Tensor(argument.name, np.dtype(NUMPY_TYPES[argument.type]), shape)
    return found
