# SPDX-License-Identifier: Apache-2.0
"""Whether the functions of this release will understand the policy that holds: asked before they are installed."""

from typing import Any

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import CommandFailed, GateRefused
from linewatch_fleet.output import say
from work_orders.policies import Policies
from work_orders.policy_reading import PolicyError
from work_orders.records import Records


def check_stored_policy(account: Account, stack: dict[str, Any] | None) -> None:
    """Raises GateRefused where the stack's policy would give way to the one that the release brings, pilot and all.

    This checkout's cloud/ is what provision installs, so its own reader judges. Nothing to judge: no stack, a stack of a
    release without stored policies, none put. A table that can't be read is told and stops nothing: the stack may be
    what has to be mended.
    """
    outputs = {one["OutputKey"]: one["OutputValue"] for one in (stack or {}).get("Outputs", ())}
    if "PoliciesTable" not in outputs:
        return
    tables = account.tables()
    name = account.environment.name
    try:
        with explained():
            Policies(tables, outputs["PoliciesTable"], Records(tables, outputs["RecordsTable"])).stored()
    except CommandFailed as error:
        say(f"the policy that holds is not checked against this release: {error.message}")
    except PolicyError as error:
        raise GateRefused(
            f"the policy that holds in {name} is refused by this release, whose own would hold instead:\n{error}\n"
            f"Mend it (`linewatch policy show {name} > policy.json`), give it a version of its own, try it with "
            f"`linewatch policy check policy.json`, put it with `linewatch policy put {name} policy.json`, and provision again"
        ) from error
