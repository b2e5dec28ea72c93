# SPDX-License-Identifier: Apache-2.0
"""`linewatch provision ENVIRONMENT [--device THING]`: what is there once for an account, or for a device."""

from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import click

from linewatch_fleet import options, output
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.account import plan_account, withdraw
from linewatch_fleet.provisioning.authorities import root_certificates
from linewatch_fleet.provisioning.devices import Devices, Wanted, checked_line, checked_names, read_names
from linewatch_fleet.provisioning.nucleus import Runtime
from linewatch_fleet.provisioning.stack import Overtaken, Stack

_TRIES = 3


@click.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.option("--device", "device", metavar="THING", help="Provision this device instead of the account.")
@click.option("--devices", "devices", type=click.Path(path_type=Path), metavar="FILE",
              help="Provision many: one thing a line.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("devices"), show_default=True,
              help="Folder for the devices' folders: keys, certificates, configuration.")  # fmt: skip
@click.option("--nucleus", "runtime", type=click.Choice(["classic", "lite"]), default="classic", show_default=True,
              help="The Greengrass runtime on the device.")  # fmt: skip
@click.option(
    "--accelerator", type=click.Choice(["jetson"]), help="classic: chooses inference's image for it."
)
@click.option("--line", default="", help="The line that the device stands at, remembered as an attribute.")
@click.option("--ca-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Authorities of the endpoints.  [default: Amazon Root CA 1 and 3]")  # fmt: skip
@click.option("--replace-certificate", "replace", is_flag=True,
              help="A new key and certificate; the old one is deactivated and deleted.")  # fmt: skip
@click.option("--layer", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="The Lambdas' layer, already built.  [default: pip builds it]")  # fmt: skip
@click.option("--protect/--no-protect", default=None,
              help="Termination protection of the stack.  [default: for an environment named prod]")  # fmt: skip
@options.dry_run
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, environment: str, **asked: Any) -> None:
    """Make what ENVIRONMENT's account needs, or with --device what a device needs. Run again, it keeps what is right.

    Shows each change and makes none with --dry-run. docs/first-device.md has the permissions and what it costs.
    """
    account = Account(options.environment_of(ctx, environment))
    with documented("docs/first-device.md"), explained():
        if asked["device"] or asked["devices"]:
            names = [asked["device"]] if asked["device"] else read_names(asked["devices"])
            if asked["device"] and asked["devices"]:
                raise BadInput("give --device or --devices")
            _provision_devices(account, checked_names(names), asked)
        else:
            _provision_account(account, asked)


def _provision_account(account: Account, asked: dict[str, Any]) -> None:
    account.check()
    protect = account.environment.name == "prod" if asked["protect"] is None else asked["protect"]
    for _ in range(_TRIES):
        try:
            made = plan_account(account, asked["layer"], protect=protect, dry_run=asked["dry_run"])
            if asked["dry_run"]:
                withdraw(account, made)
                _told(made.plan, asked, {})
                return
            if not asked["as_json"]:
                made.plan.show()
            try:
                made.plan.apply(f"provisioning {account.environment.name}")
            except CommandFailed:
                with suppress(CommandFailed):
                    withdraw(account, made)
                raise
        except Overtaken:
            output.say("the stack is being changed by somebody else; looking again")
            continue
        outputs = Stack(account, account.environment.stack).outputs()
        if asked["as_json"]:
            _told(made.plan, asked, outputs)
        else:
            output.table(("OUTPUT", "VALUE"), sorted(outputs.items()))
        return
    raise CommandFailed(
        f"stack {account.environment.stack} is changed by somebody else again and again; try later"
    )


def _provision_devices(account: Account, names: list[str], asked: dict[str, Any]) -> None:
    runtime = cast("Runtime", asked["runtime"])
    if asked["accelerator"] and runtime == "lite":
        raise BadInput(
            "--accelerator: the lite runtime knows no attributes of a platform; use --nucleus classic"
        )
    wanted = Wanted(
        out=asked["out"],
        runtime=runtime,
        accelerator=asked["accelerator"] or "",
        line=checked_line(asked["line"]),
        authorities=root_certificates(asked["ca_file"]),
        replace=asked["replace"],
    )
    account.check()
    devices = Devices(account, wanted)
    if asked["dry_run"]:
        _told(devices.plan(names), asked, {})
        return
    with devices.hold(names):
        plan = devices.plan(names)
        if not asked["as_json"]:
            plan.show()
        plan.apply("provisioning devices")
    folders = {name: str(wanted.out / name) for name in names}
    if asked["as_json"]:
        _told(plan, asked, {"folders": folders})
    else:
        output.table(("DEVICE", "FOLDER"), folders.items())


def _told(plan: Plan, asked: dict[str, Any], result: dict[str, Any]) -> None:
    if asked["as_json"]:
        output.document({"dry_run": asked["dry_run"], "plan": plan.as_json(), "result": result})
    else:
        plan.show()
