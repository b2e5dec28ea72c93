# SPDX-License-Identifier: Apache-2.0
"""What the functions count for CloudWatch, in the embedded metric format: a log line, no call."""

import os

from aws_lambda_powertools import Metrics, single_metric
from aws_lambda_powertools.metrics import MetricUnit

metrics = Metrics(namespace="Linewatch")
"""The dimension `service` is POWERTOOLS_SERVICE_NAME. cloud/README.md lists every metric; alarms and dashboard go by it."""
metrics.set_default_dimensions(environment=os.environ.get("ENVIRONMENT", "none"))


def tell_metrics() -> None:
    """Writes what was counted since the last time, at the end of each invocation."""
    if metrics.metric_set:
        metrics.flush_metrics()


def tell_doubled(count: int) -> None:
    """Tells of surplus orders in the ERP, as work_orders whichever function saw them: an alarm knows one dimension's value."""
    with single_metric(
        name="OrdersDoubled", unit=MetricUnit.Count, value=count, namespace="Linewatch"
    ) as metric:
        metric.add_dimension("service", "work_orders")
        metric.add_dimension("environment", os.environ.get("ENVIRONMENT", "none"))
