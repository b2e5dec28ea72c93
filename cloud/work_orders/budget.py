# SPDX-License-Identifier: Apache-2.0
"""A Lambda's time: what is not begun in time is left for the next one, and nobody dies in the middle of another's work."""

import math
from collections.abc import Callable
from typing import Any

ORDER_S = 25.0
"""One order: a token, a lookup, a creation and a lookup at ErpTimeoutSeconds' 5 s each, and our own tables."""

LONGEST_S = 60.0
"""Of an invocation that places orders, as in the template; what it asks the ERP ends sooner."""

AFTER_ERP_S = 8.0
"""What follows the ERP's last answer: our own tables, a device's shadow (aws.SHADOW), SNS (aws.ANNOUNCE), our answer."""

SHADOW_S = 8.0
"""An order's two shadows with an endpoint that answers at its latest, a few times over."""


def left_of(context: Any) -> Callable[[], float]:
    """Seconds that are left of the invocation; infinite without a Lambda, as in a test or at a desk of one's own."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return (lambda: remaining() / 1000.0) if remaining is not None else (lambda: math.inf)
