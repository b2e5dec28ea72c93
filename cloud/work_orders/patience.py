# SPDX-License-Identifier: Apache-2.0
"""Which times keep exactly once. Pure; one rule for the functions at their start and for `linewatch provision`."""

from erp.settings import SettingsError
from work_orders.budget import LONGEST_S

SHORTEST_SETTLE_S = 1.0
"""Without any, what the ERP commits a moment after its connection broke is created again."""


def shortest_lease_s(erp_timeout_s: float, settle_s: float) -> float:
    """Under this a lease can't keep exactly once when its worker dies.

    The worker may ask for a token, look up, create and look up again, each for `erp_timeout_s`, as far as its invocation
    lasts; and the ERP may commit the last of it `settle_s` later. Who leases sooner looks before that and creates another.
    An adapter that looks up in more than one call may need more: LONGEST_S + settle_s, the template's 90 s, is enough for all.
    """
    return min(4 * erp_timeout_s, LONGEST_S) + settle_s


def check_patience(*, lease_s: float, settle_s: float, erp_timeout_s: float) -> None:
    """Raises SettingsError where an order could come to be twice: the template's numbers can't be held against each other.

    Each is named as the template's parameter and, for the log of a function, as its variable.
    """
    if not settle_s >= SHORTEST_SETTLE_S:
        raise SettingsError(
            f"SettleSeconds (SETTLE_S) is {settle_s:g}; set it to at least {SHORTEST_SETTLE_S:g}, and to the longest time "
            "in which the ERP commits what it did not answer"
        )
    shortest = shortest_lease_s(erp_timeout_s, settle_s)
    if not lease_s >= shortest:
        raise SettingsError(
            f"LeaseSeconds (LEASE_S) is {lease_s:g}; with ErpTimeoutSeconds (ERP_TIMEOUT_S) {erp_timeout_s:g} and "
            f"SettleSeconds (SETTLE_S) {settle_s:g} another worker could make the order again: set LeaseSeconds to at "
            f"least {shortest:g}"
        )
