# SPDX-License-Identifier: Apache-2.0
"""The console's audit log: hash-chained, bounded, on the disk before a decision goes out."""

from linewatch_console.audit.log import Audit, AuditError

__all__ = ["Audit", "AuditError"]
