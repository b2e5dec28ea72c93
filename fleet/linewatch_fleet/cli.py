# SPDX-License-Identifier: Apache-2.0
"""`linewatch`: one verb, one module below verbs/. A verb's module is imported when the verb is used."""

import importlib
import sys
from pathlib import Path

import click

from linewatch_fleet import config, errors, output
from linewatch_fleet.output import say

VERBS = {
    "release": "pin images, models, recipes and template of this commit in release.yaml, and sign it",
    "promote": "copy a release's images into an environment's registry, when its gate is satisfied",
    "provision": "make an environment's cloud resources, and a device's",
    "teardown": "remove exactly what provision made",
    "package": "make a checked model package from an ONNX file",
    "publish": "upload models, render recipes, create component versions",
    "deploy": "roll a release out to a thing group or a thing",
    "status": "what runs on each device, what is wrong and why",
    "rollback": "deploy the previous release again",
    "cancel": "cancel a deployment that is being rolled out",
    "policy": "when alarms become work orders: check, show, put, replay a month against another",
    "doctor": "check this device",
    "bundle": "everything for an air-gapped device in one archive",
    "recipes": "render and lint the recipes",
    "assets": "which machine each station's work orders are for: import, export, check",
    "dead-letters": "what the cloud could not handle: list, explain, replay, discard",
    "accuracy": "how often the alarms were right, by what technicians found",
    "pilot-exit": "may orders be created without asking, and from which risk on",
    "erp": "try the ERP or CMMS that work orders go to",
    "orders": "work orders that stand still: list, explain, replay",
    "why": "why a work order exists, as one timeline",
    "verify": "whether the records of work orders are as they were written",
}

EPILOG = f"""Exit codes: {errors.OK} done, {errors.FAILED} failed, {errors.USAGE} wrong usage or file,
{errors.REFUSED} refused by a gate or check, {errors.UNHEALTHY} looked and found something unwell."""


class _Verbs(click.Group):
    """Knows the verbs by name, so that `--help` does not import boto3."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(
            f"linewatch_fleet.verbs.{cmd_name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--fleet", "fleet_file", type=click.Path(path_type=Path), default=config.DEFAULT_FILE, show_default=True,
              help="The fleet file.")  # fmt: skip
@click.pass_context
def linewatch(ctx: click.Context, fleet_file: Path) -> None:
    """From commit to fleet: release, prove, promote, deploy, see it healthy, roll back."""
    ctx.obj = fleet_file


def main() -> None:
    """The program."""
    try:
        # Without its standalone mode click hands back what ctx.exit() was given.
        code = linewatch.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted; run the same command again to go on")
        sys.exit(errors.INTERRUPTED)
    except OSError as error:
        # What a verb reads and writes it explains itself; this is what is left, such as --help into a full disk.
        output.give_up(sys.stdout)
        what = f": {error.filename}" if error.filename else ""
        say(f"the system said no: {error.strerror or error}{what}")
        sys.exit(errors.FAILED)
    code = code if isinstance(code, int) else errors.OK
    if output.lost():
        say(f"{output.lost()}; what the command had to do is done, exit code {code} otherwise")
    sys.exit(code or (errors.FAILED if output.lost() else errors.OK))


if __name__ == "__main__":
    main()
