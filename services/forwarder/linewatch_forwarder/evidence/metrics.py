# SPDX-License-Identifier: Apache-2.0
"""What Prometheus sees of the evidence's upload."""

from prometheus_client import Counter, Gauge

from linewatch_forwarder.evidence.s3_failures import REASONS

_PREFIX = "linewatch_forwarder_evidence_"

WAITING_FILES = Gauge(_PREFIX + "waiting_files", "Evidence files that the cloud does not have yet.")
WAITING_BYTES = Gauge(_PREFIX + "waiting_bytes", "Their bytes.")
PINNED = Gauge(_PREFIX + "pinned", "Parts whose evidence an open work order holds on this device.")
UPLOADED = Counter(_PREFIX + "uploaded", "Evidence files that the cloud has taken.")
UPLOADED_BYTES = Counter(_PREFIX + "uploaded_bytes", "Their bytes.")
FAILURES = Counter(_PREFIX + "failures", "Tries to upload a file that failed, by reason.", ["reason"])

for reason in (*REASONS, "disk"):
    FAILURES.labels(reason)
