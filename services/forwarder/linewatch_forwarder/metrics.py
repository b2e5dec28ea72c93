# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics straight from the last look at the streams, so that counts survive a restart with them."""

import math
from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from linewatch_forwarder.status import Look, StreamView

PREFIX = "linewatch_forwarder_"

DROP_REASONS = (
    "damaged", "damaged_unknown", "dead_letters_full", "expired", "overwritten", "shed_good", "stream_gap",
)  # fmt: skip
"""Why streams drop events; further reasons (a gap, a damaged file) appear when they happen."""


class LookMetrics(Collector):
    """What the last look found. `look` is replaced by each; before the first there are no stream's samples."""

    def __init__(self, is_broker_connected: Callable[[], bool]) -> None:
        self._is_broker_connected = is_broker_connected
        self.look: Look | None = None

    def collect(self) -> Iterable[Metric]:
        """One sample per stream. What is not known has none."""
        look = self.look
        yield _gauge("broker_connected", "1 while the broker is reached", float(self._is_broker_connected()))
        uplink = look.uplink if look else None
        yield _gauge(
            "uplink_connected", "1 while the cloud is reached", float(uplink.connected if uplink else False)
        )
        yield _gauge(
            "offline_seconds", "Since when the cloud is not reached; 0 while it is",
            uplink.for_s if uplink and not uplink.connected else 0.0,
        )  # fmt: skip
        days = uplink.certificate_days if uplink else None
        yield _gauge(
            "certificate_seconds", "Until the uplink's certificate ends; below 0 after it",
            None if days is None else days * 86400.0,
        )  # fmt: skip
        yield _gauge(
            "streams_unavailable",
            "1 while the streams can't be asked",
            float(bool(look and look.unavailable)),
        )
        yield _gauge(
            "dead_letters", "Events put aside that can never be delivered and wait for a person; counted up to 100",
            look.dead_letters.count if look else None,
        )  # fmt: skip
        yield _gauge(
            "drain_seconds", "Until the backlog is gone, at the rate measured last",
            look.drain.seconds if look else None,
        )  # fmt: skip
        yield _gauge(
            "drain_events_per_second", "Events delivered while there was a backlog, as measured last",
            look.drain.rate_per_s if look else None,
        )  # fmt: skip
        yield from _of_streams(look.streams if look else ())


def _of_streams(streams: Iterable[StreamView]) -> Iterable[Metric]:
    streams = list(streams)
    gauges: dict[str, tuple[str, Callable[[StreamView], float | None]]] = {
        "stream_max_bytes": ("Bytes that the stream may hold", lambda one: one.state.max_bytes),
        "stream_full": ("1 while the stream takes no events", lambda one: bool(one.full)),
        "stream_refused": (
            "1 while the cloud takes none of the stream's events",
            lambda one: one.is_refused,
        ),
        "backlog_events": ("Events waiting for the cloud", lambda one: one.state.events),
        "backlog_bytes": ("Bytes waiting for the cloud", lambda one: one.state.bytes),
        "oldest_age_seconds": ("Age of the oldest waiting event", lambda one: one.state.oldest_age_s),
        "retention_seconds": (
            "How long the stream holds at the present rate, by size or by age",
            lambda one: one.retention.seconds,
        ),
        "stream_events_per_second": (
            "Events that come into the stream, while they come",
            lambda one: one.retention.rate_per_s,
        ),
    }
    for name, (meaning, value) in gauges.items():
        gauge = GaugeMetricFamily(PREFIX + name, meaning, labels=["stream"])
        for one in streams:
            if (known := value(one)) is not None:
                gauge.add_metric([one.state.name], known)  # type: ignore[no-untyped-call]
        yield gauge
    counters: dict[str, tuple[str, Callable[[StreamView], int]]] = {
        "stored": ("Events committed to disk", lambda one: one.state.stored),
        "delivered": ("Events accepted by the cloud", lambda one: one.state.settled),
        "buried": ("Events that can never be delivered", lambda one: one.state.buried),
    }
    for name, (meaning, count) in counters.items():
        counter = CounterMetricFamily(PREFIX + name, meaning, labels=["stream"])
        for one in streams:
            counter.add_metric([one.state.name], count(one))  # type: ignore[no-untyped-call]
        yield counter
    dropped = CounterMetricFamily(f"{PREFIX}dropped", "Events dropped by policy", labels=["stream", "reason"])
    for one in streams:
        # Zeros too: a count that appears only with its first drop can't be seen to rise.
        for reason, value_ in {**dict.fromkeys(DROP_REASONS, 0), **one.state.dropped}.items():
            dropped.add_metric([one.state.name, reason], value_)
    yield dropped


def _gauge(name: str, meaning: str, value: float | None) -> GaugeMetricFamily:
    """Without a value, a family without a sample."""
    family = GaugeMetricFamily(PREFIX + name, meaning)
    if value is not None and math.isfinite(value):
        family.add_metric([], value)  # type: ignore[no-untyped-call]
    return family
