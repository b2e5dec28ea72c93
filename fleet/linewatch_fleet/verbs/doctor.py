# SPDX-License-Identifier: Apache-2.0
"""`linewatch doctor`: is this device fit, and if not, what to do. The checks are in linewatch_fleet/doctor."""

from pathlib import Path

import click

from linewatch_fleet import output
from linewatch_fleet.doctor.__main__ import CHECKS, examine, report
from linewatch_fleet.doctor.finding import Device
from linewatch_fleet.options import as_json


@click.command(name="doctor")
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Also write a tar.gz for support, secrets left out."
)
@click.option("--directory", type=click.Path(path_type=Path), default=Device.directory, show_default=True, help="Linewatch's folder.")  # fmt: skip
@click.option("--registry", default="", help="Registry host to reach; else that of the running images.")
@click.option("--endpoint", default="", help="IoT Core data endpoint, HOST[:PORT]; else the forwarder's.")
@as_json
@click.pass_context
def command(
    ctx: click.Context, bundle: Path | None, directory: Path, registry: str, endpoint: str, as_json: bool
) -> None:
    """Check this device: Docker, nucleus, disk, clock, certificates, registry, cloud, cameras, provider, models.

    Changes nothing. Exit 4 when something is broken.
    """
    device = Device(directory, registry, endpoint)
    with output.progress("checking", len(CHECKS)) as advance:
        findings = examine(device, advance)
    ctx.exit(report(device, findings, bundle, as_json=as_json))
