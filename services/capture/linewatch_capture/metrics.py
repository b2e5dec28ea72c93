# SPDX-License-Identifier: Apache-2.0
"""What Prometheus sees. Labels have few values; nothing here is needed for correctness."""

from prometheus_client import Counter, Gauge, Histogram

PARTS = Counter(
    "linewatch_capture_parts", "Parts by outcome: ok, ng, review, not_inspected, skipped.", ["outcome"]
)
NOT_INSPECTED = Counter("linewatch_capture_not_inspected", "Parts without a verdict, by reason.", ["reason"])
FRAME_TO_VERDICT = Histogram(
    "linewatch_capture_frame_to_verdict_seconds",
    "From taking a part to its outcome.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
SPOOL_EVENTS = Gauge("linewatch_capture_spool_events", "Events on disk that the forwarder does not have yet.")
SPOOL_BYTES = Gauge("linewatch_capture_spool_bytes", "Their bytes.")
SPOOL_FULL = Gauge(
    "linewatch_capture_spool_full", "1 while capture does not judge because its spool is full."
)
EVIDENCE_BYTES = Gauge("linewatch_capture_evidence_bytes", "Bytes of this line's evidence.")
EVIDENCE_FAILURES = Counter(
    "linewatch_capture_evidence_failures",
    "Parts whose evidence could not be written; their events went on without.",
)
