# SPDX-License-Identifier: Apache-2.0
"""`linewatch erp check ENVIRONMENT`: whether the real ERP does what work orders rely on."""

from dataclasses import asdict
from typing import Any

import click

from erp.check import Step, run
from erp.choose import erp_of
from erp.port import Erp
from erp.settings import SettingsError
from linewatch_fleet import errors, options, output
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.published import stack_outputs

PAGE = "docs/erp.md"
WORDS = {True: "ok", False: "FAILED", None: "by hand"}


@click.group()
def command() -> None:
    """The ERP or CMMS that work orders go to. docs/erp.md tells how each product is connected."""


@command.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.option("--order", "erp_id", metavar="ID", default="", help="Read the status of this order, too.")
@click.option(
    "--create", is_flag=True, help="Make one order that says it is a test, and end it. For a sandbox."
)
@click.option(
    "--asset", "asset_id", metavar="ID", default="", help="The asset of that order, as the registry names it."
)
@options.as_json
@click.pass_context
def check(
    ctx: click.Context, environment: str, erp_id: str, create: bool, asset_id: str, as_json: bool
) -> None:
    """Try the ERP of ENVIRONMENT with its own settings and secret. Reads only, but for --create. Exit code 4 where one fails."""
    if create != bool(asset_id):
        raise BadInput("--create and --asset ID belong together: a test order is made for an asset")
    with documented(PAGE):
        account = Account(options.environment_of(ctx, environment))
        account.check()
        configured, erp = _connected(account)
        with explained():
            steps = list(run(erp, asset_id=asset_id, erp_id=erp_id))
    if as_json:
        output.document(
            {
                "kind": configured["ERP_KIND"],
                "url": configured["ERP_BASE_URL"],
                "steps": [asdict(step) for step in steps],
            }
        )
    else:
        output.table(("STEP", "", "TOLD"), [(step.name, WORDS[step.is_good], step.told) for step in steps])
    if any("AccessDenied" in step.told for step in steps):
        output.say(f"{PAGE} lists the permissions that this command needs")
    _say(environment, configured, steps)
    if any(step.is_good is False for step in steps):
        ctx.exit(errors.UNHEALTHY)


def _connected(account: Account) -> tuple[dict[str, str], Erp]:
    """As the function `work_orders` has it: the same settings, the same secret, this machine's network."""
    name = stack_outputs(account)["WorkOrdersFunctionName"]
    with explained():
        function: dict[str, Any] = account.reader("lambda").get_function_configuration(FunctionName=name)
    configured: dict[str, str] = function["Environment"]["Variables"]
    if "ERP_KIND" not in configured:
        raise CommandFailed(
            f"this environment is of an older release; run `linewatch provision {account.environment.name}`"
        )
    try:
        return configured, erp_of(configured, account.reader("secretsmanager"))
    except SettingsError as error:
        raise BadInput(f"{error}; it is a parameter of the environment in fleet.yaml") from error


def _say(environment: str, configured: dict[str, str], steps: list[Step]) -> None:
    failed = sum(step.is_good is False for step in steps)
    result = f"{failed} of {len(steps)} steps failed" if failed else f"{len(steps)} steps, none failed"
    output.say(f"{environment}: {configured['ERP_KIND']} at {configured['ERP_BASE_URL']}: {result}")
