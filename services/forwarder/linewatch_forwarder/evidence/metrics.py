# SPDX-License-Identifier: Apache-2.0
"""What Prometheus sees of the evidence's upload."""

from prometheus_client import Counter, Gauge

from linewatch_forwarder.evidence.s3_failures import REASONS

WAITING_FILES = Gauge(
    "linewatch_forwarder_evidence_waiting_files", "Evidence files that the cloud does not have yet."
)
WAITING_BYTES = Gauge("linewatch_forwarder_evidence_waiting_bytes", "Their bytes.")
PINNED = Gauge(
    "linewatch_forwarder_evidence_pinned", "Parts whose evidence an open work order holds on this device."
)
UPLOADED = Counter("linewatch_forwarder_evidence_uploaded", "Evidence files that the cloud has taken.")
UPLOADED_BYTES = Counter("linewatch_forwarder_evidence_uploaded_bytes", "Their bytes.")
FAILURES = Counter(
    "linewatch_forwarder_evidence_failures", "Tries to upload a file that failed, by reason.", ["reason"]
)

for reason in (*REASONS, "disk"):
    FAILURES.labels(reason)
