# SPDX-License-Identifier: Apache-2.0
"""Lambda `watch`, on a schedule: what has to happen although no event comes.

Jobs stand beside each other: one that fails is logged, the others run, and the run fails at its end, for the alarm.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger

from erp.deadline import within
from outcomes import polling
from watch import approvals, silent_lines
from work_orders.budget import AFTER_ERP_S, left_of
from work_orders.metrics import tell_metrics
from work_orders.observing import Desk
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)

Job = Callable[[Desk], Mapping[str, int]]

JOBS: Mapping[str, Job] = {
    "outcomes": polling.job,
    "approvals": approvals.approvals,
    "silent_lines": silent_lines.silent_lines,
}
"""By name, in the order in which they run. Each returns what it counted."""


def run(tools: Desk, jobs: Mapping[str, Job]) -> dict[str, Any]:
    """Every job once; what each counted, and the names of those that failed."""
    counted: dict[str, Any] = {}
    failed: list[str] = []
    for name, job in jobs.items():
        try:
            counted[name] = dict(job(tools))
        except Exception:
            log.exception("job_failed", extra={"job": name})
            failed.append(name)
    return {**counted, "failed": failed}


def handler(_event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Schedule entry point."""
    try:
        with within(left_of(context)() - AFTER_ERP_S):
            counted = run(desk(), JOBS)
    finally:
        tell_metrics()
    log.info("watched", extra=counted)
    if counted["failed"]:
        raise RuntimeError(f"failed: {', '.join(counted['failed'])}; the log says why")
    return counted
