# SPDX-License-Identifier: Apache-2.0
"""What Prometheus sees. Labels have few values; nothing here is needed for correctness."""

from prometheus_client import Counter, Gauge, Histogram

from linewatch_capture.evidence_value import Worth
from linewatch_capture.parts import REASONS

OUTCOMES = ("ok", "ng", "review", "not_inspected", "skipped")
STATES = ("running", "waiting", "stopped", "offline")

PARTS = Counter(
    "linewatch_capture_parts", "Parts by outcome: ok, ng, review, not_inspected, skipped.", ["outcome"]
)
PARTS_TAKEN = Counter(
    "linewatch_capture_parts_taken",
    "Parts that the source gave, at once; their outcomes follow with the part that is recorded next.",
)
NOT_INSPECTED = Counter("linewatch_capture_not_inspected", "Parts without a verdict, by reason.", ["reason"])
FRAME_TO_VERDICT = Histogram(
    "linewatch_capture_frame_to_verdict_seconds",
    "From taking a part to its outcome.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
STATE = Gauge("linewatch_capture_state", "1 for the state that the station is in.", ["state"])
INFO = Gauge("linewatch_capture_info", "1; which station this is.", ["line", "station", "model", "source"])
BROKER_CONNECTED = Gauge("linewatch_capture_broker_connected", "1 while the broker is reached.")
SPOOL_EVENTS = Gauge("linewatch_capture_spool_events", "Events on disk that the forwarder does not have yet.")
SPOOL_BYTES = Gauge("linewatch_capture_spool_bytes", "Their bytes.")
SPOOL_MAX_BYTES = Gauge("linewatch_capture_spool_max_bytes", "The bytes at which capture stops judging.")
SPOOL_AGE = Gauge("linewatch_capture_spool_oldest_age_seconds", "Age of the oldest of these events.")
SPOOL_FULL = Gauge(
    "linewatch_capture_spool_full", "1 while capture does not judge because its spool is full."
)
EVIDENCE_BYTES = Gauge(
    "linewatch_capture_evidence_bytes", "Bytes of this line's evidence, of all its stations together."
)
EVIDENCE_MAX_BYTES = Gauge(
    "linewatch_capture_evidence_max_bytes", "The bytes at which the least valuable goes."
)
EVIDENCE_EVICTED = Counter(
    "linewatch_capture_evidence_evicted",
    "Parts whose evidence went for a newer part's: good, certain, uncertain.",
    ["worth"],
)
EVIDENCE_FULL = Gauge(
    "linewatch_capture_evidence_full",
    "1 while open work orders hold so much that the newest evidence was not kept.",
)
EVIDENCE_NOT_KEPT = Counter(
    "linewatch_capture_evidence_not_kept", "Parts whose evidence was not kept for that reason."
)
EVIDENCE_FAILURES = Counter(
    "linewatch_capture_evidence_failures",
    "Parts whose evidence could not be written; their events went on without.",
)

# From the first moment on: a count that appears only with its first event can't be seen to stand still.
for outcome in OUTCOMES:
    PARTS.labels(outcome)
for one_worth in Worth:
    EVIDENCE_EVICTED.labels(one_worth.name.lower())
for reason in REASONS:
    NOT_INSPECTED.labels(reason)


def state_is(state: str) -> None:
    """Of the STATES, the one that the station is in."""
    for one in STATES:
        STATE.labels(one).set(one == state)
