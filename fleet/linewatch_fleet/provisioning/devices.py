# SPDX-License-Identifier: Apache-2.0
"""Devices of an environment: two things each (the core device, and its forwarder), certificates, and a folder."""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.output import progress
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning.core_policy import plan_policy, policy_document, policy_name
from linewatch_fleet.provisioning.device import Registry, Thing, plan_identity, plan_thing
from linewatch_fleet.provisioning.handover import files_of, held, plan_files
from linewatch_fleet.provisioning.nucleus import NUCLEUS, VERSION, Connection, Runtime
from linewatch_fleet.provisioning.stack import Stack

# The cloud may write the shadows of things named so, and of no others.
_NAME = re.compile(r"linewatch-[A-Za-z0-9_-]{1,90}")
_LINE = re.compile(r"[a-z0-9_-]{1,64}")
FORWARDER = "-forwarder"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for on the command line, for each device alike."""

    out: Path
    runtime: Runtime
    accelerator: str
    line: str
    authorities: bytes
    replace: bool


def checked_names(names: list[str]) -> list[str]:
    """Names that can be devices of ours. Raises BadInput."""
    for name in names:
        if not _NAME.fullmatch(name) or name.endswith(FORWARDER):
            raise BadInput(
                f"device {name!r}: a name is linewatch- and up to 90 of letters, digits, _ and -, and does not end in "
                f"{FORWARDER}"
            )
        if names.count(name) > 1:
            raise BadInput(f"device {name!r} is there twice")
    return names


def read_names(path: Path) -> list[str]:
    """The devices of a file, one a line; empty lines and what follows a # count for nothing. Raises BadInput."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--devices {path}: can't be read: {error}") from error
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    if not names:
        raise BadInput(f"--devices {path}: names no device")
    return names


def checked_line(line: str) -> str:
    """A line's name as it may stand in a topic. Raises BadInput."""
    if line and not _LINE.fullmatch(line):
        raise BadInput(f"--line {line!r}: lower-case letters, digits, _ and -")
    return line


class Devices:
    """Provisions devices into an environment whose account is provisioned."""

    def __init__(self, account: Account, wanted: Wanted) -> None:
        self._wanted = wanted
        self._environment = account.environment
        self._iot = account.client("iot")
        self._registry = Registry(self._iot)
        self._outputs = Stack(account, account.environment.stack).outputs()
        if "CorePolicyName" not in self._outputs:
            raise CommandFailed(
                f"stack {account.environment.stack} knows no devices yet; run `linewatch provision "
                f"{account.environment.name}` to bring it up to date"
            )
        with explained():
            self._connection = Connection(
                region=account.environment.region,
                role_alias=self._outputs["RoleAliasName"],
                data_endpoint=self._endpoint("iot:Data-ATS"),
                credentials_endpoint=self._endpoint("iot:CredentialProvider"),
            )

    def plan(self, names: list[str]) -> Plan:
        """The plan for all of them. Raises GateRefused for the first that can't be provisioned."""
        plan = Plan()
        with progress("looking", len(names)) as advance:
            for name in names:
                self._plan_one(name, plan)
                advance(name)
        return plan

    def hold(self, names: list[str]) -> ExitStack:
        """Holds the devices' folders, so that two runs here do not make two keys."""
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(held(self._wanted.out / name))
            return stack.pop_all()

    def _plan_one(self, name: str, plan: Plan) -> None:
        wanted, environment = self._wanted, self._environment
        folder = wanted.out / name
        things = (
            Thing(
                name, folder / "nucleus", (policy_name(name), self._outputs["CorePolicyName"]),
                environment.name, wanted.line, self._outputs["ThingGroupName"],
            ),
            Thing(name + FORWARDER, folder / "uplink", (self._outputs["DevicePolicyName"],), environment.name, wanted.line),
        )  # fmt: skip
        for thing in things:
            plan_thing(self._registry, thing, plan)
        document = policy_document(self._iot.meta.partition, environment.region, environment.account, name)
        plan_policy(self._iot, environment.name, name, document, plan)
        for thing in things:
            plan_identity(self._registry, thing, plan, replace=wanted.replace)
        version = environment.components.get(NUCLEUS["classic"], VERSION)
        facts = {
            "thing": name,
            "environment": environment.name,
            "account": environment.account,
            "region": environment.region,
            "site": self._outputs["SiteName"],
            "line": wanted.line,
            "nucleus": wanted.runtime,
            "uplink_thing": name + FORWARDER,
            "uplink_endpoint": self._connection.data_endpoint,
        }
        files = files_of(
            name, wanted.runtime, self._connection, version, wanted.accelerator, wanted.authorities, facts
        )
        plan_files(folder, files, plan)

    def _endpoint(self, kind: str) -> str:
        return str(self._iot.describe_endpoint(endpointType=kind)["endpointAddress"])
