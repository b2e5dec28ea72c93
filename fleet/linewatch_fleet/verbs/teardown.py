# SPDX-License-Identifier: Apache-2.0
"""`linewatch teardown ENVIRONMENT [--device THING]`: removes what provision made, and nothing else."""

from typing import Any

import click

from linewatch_fleet import options, output
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.greengrass import Greengrass
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.account_removing import AccountRemoval
from linewatch_fleet.provisioning.devices import FORWARDER, checked_names
from linewatch_fleet.provisioning.removing import Removal


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.option("--device", metavar="THING", help="Remove this device only.")
@click.option("--delete-data", is_flag=True,
              help="Delete tables and the ERP's credentials, too; else they stay and are named.")  # fmt: skip
@click.option("--unprotect", is_flag=True, help="Remove a stack that has termination protection.")
@click.option("--yes", is_flag=True, help="Do not ask for the environment's name.")
@options.dry_run
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, environment: str, **asked: Any) -> None:
    """Remove what provision made for ENVIRONMENT: its devices, its stack, its buckets. With --device only a device.

    Shows everything first. What provision did not make is refused or left alone: images and component versions stay.
    docs/cleaning-up.md tells how those are removed.
    """
    account = Account(options.environment_of(ctx, environment))
    with documented("docs/cleaning-up.md"), explained():
        account.check()
        plan = _plan(account, asked)
        if asked["dry_run"] or not plan.changes:
            _told(plan, asked)
            if not plan.changes:
                output.say(f"there is nothing to remove for {asked['device'] or environment}")
            return
        if not asked["as_json"]:
            plan.show()
        _confirm(environment, asked)
        plan.apply(f"removing {asked['device'] or environment}")
        if asked["as_json"]:
            _told(plan, asked)


def _plan(account: Account, asked: dict[str, Any]) -> Plan:
    plan = Plan()
    removal = Removal(account)
    if asked["device"]:
        for name in checked_names([asked["device"]]):
            removal.plan_device(name, plan)
        return plan
    of_account = AccountRemoval(account)
    if group := of_account.group():
        removal.plan_deployments(Greengrass(account).target_arn(group=group), plan)
    # A forwarder's thing may be all that a run which was cut off left of a device.
    names = sorted({thing.removesuffix(FORWARDER) for thing in removal.things()})
    with output.progress("looking", len(names)) as advance:
        for name in names:
            removal.plan_device(name, plan)
            advance(name)
    of_account.plan(plan, unprotect=asked["unprotect"], delete_data=asked["delete_data"])
    return plan


def _confirm(environment: str, asked: dict[str, Any]) -> None:
    if asked["yes"]:
        return
    if asked["as_json"]:
        raise BadInput("--json asks nothing: give --yes, or --dry-run to see the plan")
    try:
        typed = click.prompt(f"Type {environment} to remove this", default="", show_default=False, err=True)
    except click.Abort as aborted:
        # click makes one of two: nobody is there to answer, or somebody pressed Ctrl-C.
        if isinstance(aborted.__context__, EOFError):
            raise BadInput("nothing was removed: nobody is there to be asked; give --yes") from aborted
        raise
    if typed != environment:
        raise CommandFailed("nothing was removed: that is not the environment's name")


def _told(plan: Plan, asked: dict[str, Any]) -> None:
    if asked["as_json"]:
        output.document({"dry_run": asked["dry_run"], "plan": plan.as_json()})
    else:
        plan.show()
