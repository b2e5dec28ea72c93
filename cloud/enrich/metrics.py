# SPDX-License-Identifier: Apache-2.0
"""What one invocation counted, as CloudWatch metrics: namespace Linewatch, by service and environment, predictions by line."""

import os
from collections import Counter
from dataclasses import dataclass, field

from aws_lambda_powertools.metrics import MetricUnit, single_metric

NAMESPACE = "Linewatch"

MOST_LINES = 100
"""Values of the dimension `line`; each is a metric that is paid for. Lines beyond, and those without an asset, are OTHER."""

OTHER = "other"

_lines: set[str] = set()


@dataclass(slots=True)
class Tally:
    """The counts of one invocation. `told` writes them to the log, whence CloudWatch takes them."""

    predictions: Counter[str] = field(default_factory=Counter)
    unknown_assets: int = 0
    poison: int = 0

    def predicted(self, line: str, *, is_known: bool) -> None:
        """One part was judged. A line is named only where the registry has it: who sends chooses what a line is called."""
        if is_known and (line in _lines or len(_lines) < MOST_LINES):
            _lines.add(line)
        self.predictions[line if is_known and line in _lines else OTHER] += 1

    def told(self) -> None:
        """Emits what was counted."""
        for line, count in self.predictions.items():
            _metric("Predictions", count, line=line)
        for name, count in (("UnknownAssets", self.unknown_assets), ("Poison", self.poison)):
            if count:
                _metric(name, count)


def _metric(name: str, value: int, **dimensions: str) -> None:
    with single_metric(name=name, unit=MetricUnit.Count, value=value, namespace=NAMESPACE) as metric:
        for dimension, told in {"environment": os.environ.get("ENVIRONMENT", "none"), **dimensions}.items():
            metric.add_dimension(dimension, told)
