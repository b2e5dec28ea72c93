# SPDX-License-Identifier: Apache-2.0
"""The table `outcomes` from a Lambda's environment."""

import os
from collections.abc import Mapping
from functools import cache

from outcomes.store import Outcomes
from work_orders import aws


def outcomes_of(environment: Mapping[str, str]) -> Outcomes:
    """The store; KeyError names a variable that is missing."""
    return Outcomes(aws.dynamodb(), environment["OUTCOMES_TABLE"], environment["WORK_ORDERS_TABLE"])


@cache
def outcomes() -> Outcomes:
    """This process's store, built at its first use."""
    return outcomes_of(os.environ)
