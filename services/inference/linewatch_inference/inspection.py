# SPDX-License-Identifier: Apache-2.0
"""THE FLOW: find the model, wait for a worker, judge, count. Both gRPC services end here."""

import time

import numpy as np

from linewatch_inference.admission import Admission
from linewatch_inference.errors import InferenceRefused, ModelFault, NotFinite, WrongShape
from linewatch_inference.metrics import Metrics
from linewatch_inference.model import Model, with_queue
from linewatch_inference.repository import EngineEvents, Repository
from linewatch_inference.session import Tensors
from linewatch_inference.verdict import Inspected, Part, Reference

TELL_FAULT_EVERY_S = 60.0
"""A model that fails at every part is told once a minute, not once a part."""


class Inspection:
    """Judges parts and runs graphs, for every caller alike. Safe from several threads."""

    def __init__(
        self, repository: Repository, admission: Admission, metrics: Metrics, events: EngineEvents
    ) -> None:
        self.repository = repository
        self._admission = admission
        self._metrics = metrics
        self._events = events
        self._told_at: dict[str, float] = {}

    def inspect(
        self, name: str, version: str, part: Part, *, budget_s: float | None, with_heatmap: bool
    ) -> tuple[Inspected, Reference]:
        """The verdict on one part, and who gave it.

        Raises:
            InferenceRefused: there is no verdict, and why.
            ModelFault: the graph failed.
        """
        outcome, model = "internal", None
        try:
            with self.repository.model(name, version) as model, self._admission.worker(budget_s) as queue_s:
                inspected = with_queue(model.inspect(part, with_heatmap=with_heatmap), queue_s)
            outcome = inspected.verdict.result.value.lower()
        except InferenceRefused as error:
            outcome = error.reason
            raise
        except ModelFault as error:
            self._tell(name, model, error)
            raise
        finally:
            self._metrics.counted(model.reference if model else None, outcome)
        self._metrics.timed(model.reference, inspected.timings)
        return inspected, model.reference

    def infer(
        self, name: str, version: str, feeds: Tensors, outputs: list[str], *, budget_s: float | None
    ) -> tuple[Tensors, Reference]:
        """The graph's own outputs (all of them when none are named) for tensors as they are.

        Raises:
            InferenceRefused: the tensors are not those of the model, or it can't be asked now.
            ModelFault: the graph failed.
        """
        outcome, model = "internal", None
        try:
            with self.repository.model(name, version) as model:
                check_feeds(model, feeds)
                for output in outputs:
                    if output not in model.session.outputs:
                        raise WrongShape(
                            f"outputs: {name} has no output {output!r}; it has {', '.join(model.session.outputs)}"
                        )
                with self._admission.worker(budget_s):
                    tensors = model.session.run(feeds, outputs or list(model.session.outputs))
            outcome = "tensors"
        except InferenceRefused as error:
            outcome = error.reason
            raise
        except ModelFault as error:
            self._tell(name, model, error)
            raise
        finally:
            self._metrics.counted(model.reference if model else None, outcome)
        return tensors, model.reference

    def count_refused(self, error: InferenceRefused) -> None:
        """Counts a request that was refused before a model was looked for."""
        self._metrics.counted(None, error.reason)

    def _tell(self, name: str, model: Model | None, error: ModelFault) -> None:
        now = time.monotonic()
        if now - self._told_at.get(name, -TELL_FAULT_EVERY_S) >= TELL_FAULT_EVERY_S:
            self._told_at[name] = now
            self._events.publish("EngineError", model.reference if model else None, str(error))


def check_feeds(model: Model, feeds: Tensors) -> None:
    """Passes tensors that are the graph's inputs. Raises WrongShape or NotFinite, naming the tensor."""
    wanted = model.session.inputs
    if feeds.keys() != wanted.keys():
        raise WrongShape(
            f"inputs: {', '.join(feeds) or 'none'}; {model.reference.name} takes {', '.join(wanted)}"
        )
    for name, values in feeds.items():
        tensor = wanted[name]
        if values.dtype != tensor.dtype:
            raise WrongShape(f"inputs.{name}: datatype {values.dtype}, the model takes {tensor.dtype}")
        fits = values.ndim == len(tensor.shape) and all(
            size in {-1, told} for size, told in zip(tensor.shape, values.shape, strict=True)
        )
        if not fits or values.size == 0:
            raise WrongShape(
                f"inputs.{name}: shape {list(values.shape)}, the model takes {list(tensor.shape)}"
            )
        is_window = model.description.takes_windows and np.issubdtype(values.dtype, np.floating)
        if is_window and not np.isfinite(values).all():
            raise NotFinite(
                f"inputs.{name}: a value is no finite number; mend the sensor, don't fill in a value"
            )
