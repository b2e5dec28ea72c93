# SPDX-License-Identifier: Apache-2.0
"""What technicians found in an environment, read with its own credentials, and how a share is printed."""

import json
from collections.abc import Mapping
from typing import Any

import click

from linewatch_fleet import options
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import CommandFailed
from linewatch_fleet.published import stack_outputs, stack_parameters
from outcomes.store import Outcomes
from work_orders.policies import Policies
from work_orders.policy_data import PATH
from work_orders.records import Records

PAGE = "docs/accuracy.md"


class Judged:
    """The tables of one environment."""

    def __init__(self, ctx: click.Context, environment: str) -> None:
        """Raises CommandFailed: it is of a release that knows no outcomes."""
        account = Account(options.environment_of(ctx, environment))
        account.check()
        outputs = stack_outputs(account)
        if "OutcomesTable" not in outputs:
            raise CommandFailed(
                f"{environment} is of an older release, without outcomes; run `linewatch provision {environment}`"
            )
        # For how long outcomes are kept.
        self.order_days = float(stack_parameters(account).get("OrderDays", "3650"))
        with explained():
            tables = account.tables()
        self.outcomes = Outcomes(tables, outputs["OutcomesTable"], outputs["WorkOrdersTable"])
        self._policies = Policies(tables, outputs["PoliciesTable"], Records(tables, outputs["RecordsTable"]))

    def policy(self) -> dict[str, Any]:
        """The policy document that holds."""
        found = self._policies.document(None)
        return found if found is not None else dict(json.loads(PATH.read_text()))


def shown(share: Mapping[str, float] | None) -> str:
    """Such as "86 % (69 to 94)"; empty for what can't be known."""
    if share is None:
        return ""
    low, high = (f"{100 * share[end]:.0f}" for end in ("low", "high"))
    return f"{100 * share['value']:.0f} % ({low} to {high})"
