# SPDX-License-Identifier: Apache-2.0
"""Accuracy and the pilot's exit, by the functions of outcomes/ (docs/accuracy.md has the shapes)."""

import os
from typing import Any

from api.errors import BadRequestError, named
from api.request import Request
from outcomes import reports
from outcomes.wiring import outcomes
from work_orders.observing import Desk


def accuracy(request: Request, _desk: Desk) -> tuple[int, Any]:
    """?months=&by=&per="""
    asked = _asked(request, ("months", "by", "per"))
    try:
        return 200, reports.accuracy(outcomes(), **asked)  # type: ignore[arg-type]
    except ValueError as error:
        raise named(error) from error


def pilot_exit(request: Request, desk: Desk) -> tuple[int, Any]:
    """?risk=&confidence=&by=&since=&months="""
    asked = _asked(request, ("risk", "confidence", "by", "since", "months"))
    try:
        order_days = float(os.environ["ORDER_DAYS"])
        return 200, reports.pilot_exit(outcomes(), desk.data, order_days=order_days, **asked)  # type: ignore[arg-type]
    except ValueError as error:
        raise named(error) from error


def _asked(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    unknown = sorted(request.query.keys() - set(known))
    if unknown:
        raise BadRequestError(unknown[0], f"is not known here; known: {', '.join(known)}")
    return {name: value for name, value in request.query.items() if value}
