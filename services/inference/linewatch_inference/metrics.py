# SPDX-License-Identifier: Apache-2.0
"""What Prometheus sees. Labels are bounded: a model is named only once it was found."""

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from linewatch_inference.verdict import Reference, Timings

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_PREFIX = "linewatch_inference_"


class Metrics:
    """The service's metrics, in one registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._requests = Counter(
            f"{_PREFIX}requests", "Parts and tensors asked for, by outcome: a result, ok for tensors, or a reason",
            ["model", "version", "outcome"], registry=registry,
        )  # fmt: skip
        self._stages = {
            stage: Histogram(
                f"{_PREFIX}{stage}_seconds", meaning, ["model"], buckets=_SECONDS, registry=registry
            )
            for stage, meaning in {
                "queue": "Waiting for a free worker",
                "preprocess": "Decode, checks and resize",
                "predict": "The graph",
                "postprocess": "Thresholds and regions",
            }.items()
        }
        self._models = Gauge(
            f"{_PREFIX}model_info", "1 for each model in service",
            ["model", "version", "digest", "variant", "provider"], registry=registry,
        )  # fmt: skip
        self._refused = Gauge(
            f"{_PREFIX}model_refused", "1 while the package last asked for by this name is refused",
            ["model"], registry=registry,
        )  # fmt: skip
        self._serving = Gauge(f"{_PREFIX}serving", "1 while parts are judged", registry=registry)
        self._waiting = Gauge(f"{_PREFIX}waiting", "Parts that wait for a worker", registry=registry)
        self._busy = Gauge(f"{_PREFIX}busy_workers", "Workers that judge a part", registry=registry)

    def counted(self, model: Reference | None, outcome: str) -> None:
        """One request ended. `model` is None when there was no such model."""
        name, version = (model.name, model.version) if model else ("", "")
        self._requests.labels(name, version, outcome).inc()

    def timed(self, model: Reference, timings: Timings) -> None:
        """Where the time of a judged part went."""
        for stage, histogram in self._stages.items():
            histogram.labels(model.name).observe(getattr(timings, f"{stage}_s"))

    def model_in_service(self, model: Reference) -> None:
        """A model was loaded."""
        self._models.labels(*_info(model)).set(1)
        self._refused.labels(model.name).set(0)

    def model_refused(self, name: str) -> None:
        """A package of the models' directory does not hold; whoever served before goes on."""
        self._refused.labels(name).set(1)

    def model_out_of_service(self, model: Reference) -> None:
        """A model was unloaded or replaced."""
        self._models.remove(*_info(model))

    def watch_broker(self, connected: Callable[[], bool]) -> None:
        """Reads whether the broker is reached whenever it is asked for. Not called where there is to be none."""
        broker = Gauge(f"{_PREFIX}broker_connected", "1 while the broker is reached", registry=self._registry)
        broker.set_function(lambda: float(connected()))

    def watch(self, waiting: Callable[[], int], busy: Callable[[], int], serving: Callable[[], bool]) -> None:
        """Reads the queue's length, the busy workers and whether it serves whenever it is asked for."""
        self._waiting.set_function(waiting)
        self._busy.set_function(busy)
        self._serving.set_function(lambda: float(serving()))


def _info(model: Reference) -> tuple[str, ...]:
    return model.name, model.version, model.digest, model.variant, model.execution_provider
