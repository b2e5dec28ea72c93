# SPDX-License-Identifier: Apache-2.0
"""One certificate for one thing: claimed by the thing's attributes before it is made active.

A run that is cut off at any line leaves an inactive certificate at worst, and the next run finds it again: the key is
here, and a marker says since when a certificate for it may have been issued. Of two runs at once, the one whose claim
comes second withdraws: IoT counts a thing's versions.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from linewatch_fleet.aws import explained
from linewatch_fleet.errors import CommandFailed, GateRefused
from linewatch_fleet.plan import Plan
from linewatch_fleet.provisioning import keys
from linewatch_fleet.provisioning.marks import CERTIFICATES, ENVIRONMENT, LINE, code

_CLOCKS = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Thing:
    """What a thing is to be.

    Attributes:
        folder: where its key.pem and certificate.pem are.
        policies: names of the IoT policies on its certificate.
        group: thing group, or "" for none.
    """

    name: str
    folder: Path
    policies: tuple[str, ...]
    environment: str
    line: str = ""
    group: str = ""

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / "key.pem"

    @property
    def certificate(self) -> Path:
        """Its certificate."""
        return self.folder / "certificate.pem"

    @property
    def marker(self) -> Path:
        """There while a certificate may have been issued that no file has yet; holds the time."""
        return self.folder / ".requested"


class Registry:
    """Things, certificates and what ties them together."""

    def __init__(self, iot: Any) -> None:
        self._iot = iot

    def describe(self, thing: str) -> dict[str, Any] | None:
        """The thing, or None."""
        return self._unless_absent("describe_thing", thingName=thing)

    def certificate(self, certificate_id: str) -> dict[str, Any] | None:
        """The certificate, or None."""
        found = self._unless_absent("describe_certificate", certificateId=certificate_id)
        return found and found["certificateDescription"]

    def principals(self, thing: str) -> list[str]:
        """ARNs of the certificates attached to a thing."""
        with explained():
            pages = self._iot.get_paginator("list_thing_principals").paginate(thingName=thing)
            return [arn for page in pages for arn in page["principals"]]

    def policies(self, certificate_arn: str) -> list[str]:
        """Names of the policies attached to a certificate."""
        with explained():
            pages = self._iot.get_paginator("list_attached_policies").paginate(target=certificate_arn)
            return [policy["policyName"] for page in pages for policy in page["policies"]]

    def groups(self, thing: str) -> list[str]:
        """Names of the groups that a thing is in."""
        with explained():
            pages = self._iot.get_paginator("list_thing_groups_for_thing").paginate(thingName=thing)
            return [group["groupName"] for page in pages for group in page["thingGroups"]]

    def things(self, environment: str) -> list[str]:
        """Names of the things that provision made for an environment."""
        with explained():
            pages = self._iot.get_paginator("list_things").paginate(
                attributeName=ENVIRONMENT, attributeValue=environment
            )
            return sorted(thing["thingName"] for page in pages for thing in page["things"])

    def create(self, thing: Thing) -> None:
        """Creates the thing, unless another run just did."""
        attributes = {ENVIRONMENT: thing.environment} | ({LINE: thing.line} if thing.line else {})
        try:
            self._iot.create_thing(thingName=thing.name, attributePayload={"attributes": attributes})
        except ClientError as error:
            if code(error) != "ResourceAlreadyExistsException":
                with explained():
                    raise

    def enrol(self, thing: Thing, *, replace: bool) -> None:
        """Gives the thing a certificate that is claimed, tied to its policies and active. Raises CommandFailed."""
        pem = self._obtain(thing, replace=replace)
        certificate_id = keys.certificate_id(pem)
        self._claim(thing, certificate_id, replace=replace)
        thing.marker.unlink(missing_ok=True)
        self.tie(thing, certificate_id)
        self.retire_others(thing, certificate_id)

    def tie(self, thing: Thing, certificate_id: str) -> None:
        """Attaches policies and thing, and only then makes the certificate active. Does no harm twice."""
        with explained():
            arn = self._iot.describe_certificate(certificateId=certificate_id)["certificateDescription"][
                "certificateArn"
            ]
            for policy in thing.policies:
                self._iot.attach_policy(policyName=policy, target=arn)
            self._iot.attach_thing_principal(thingName=thing.name, principal=arn)
            self._iot.update_certificate(certificateId=certificate_id, newStatus="ACTIVE")

    def join(self, thing: Thing) -> None:
        """Puts the thing into its group."""
        with explained():
            self._iot.add_thing_to_thing_group(thingGroupName=thing.group, thingName=thing.name)

    def retire_others(self, thing: Thing, present: str) -> None:
        """Removes the certificates that this one replaces, and then forgets them."""
        described = self.describe(thing.name) or {}
        for certificate_id in claimed(described):
            if certificate_id != present:
                self.retire(thing.name, certificate_id)
        if claimed(described) != [present]:
            self._set(thing.name, [present], None)

    def retire(self, thing: str, certificate_id: str) -> None:
        """Deactivates, unties and deletes a certificate; one that is gone already is fine."""
        found = self.certificate(certificate_id)
        if found is None:
            return
        arn = found["certificateArn"]
        with explained():
            self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
            for policy in self.policies(arn):
                self._iot.detach_policy(policyName=policy, target=arn)
            if arn in self.principals(thing):
                self._iot.detach_thing_principal(thingName=thing, principal=arn)
            self._iot.delete_certificate(certificateId=certificate_id)

    def _obtain(self, thing: Thing, *, replace: bool) -> str:
        if thing.certificate.exists() and not replace:
            return thing.certificate.read_text()
        if not thing.marker.exists():
            if replace or not thing.key.exists():
                keys.make_key(thing.key)
            thing.certificate.unlink(missing_ok=True)
            keys.write_whole(thing.marker, datetime.now(UTC).isoformat().encode())
            pem = None
        else:
            pem = self._issued(thing, datetime.fromisoformat(thing.marker.read_text()) - _CLOCKS)
        if pem is None:
            with explained():
                pem = str(
                    self._iot.create_certificate_from_csr(
                        certificateSigningRequest=keys.signing_request(thing.key, thing.name),
                        setAsActive=False,
                    )["certificatePem"]
                )
        keys.write_whole(thing.certificate, pem.encode())
        return pem

    def _issued(self, thing: Thing, since: datetime) -> str | None:
        """A certificate for this key that a run which was cut off left behind. Newest first, no further than that run."""
        with explained():
            for page in self._iot.get_paginator("list_certificates").paginate(ascendingOrder=False):
                for entry in page["certificates"]:
                    if entry["creationDate"] < since:
                        return None
                    found = self.certificate(entry["certificateId"])
                    if found and keys.belongs(found["certificatePem"], thing.key):
                        return str(found["certificatePem"])
        return None

    def _claim(self, thing: Thing, certificate_id: str, *, replace: bool) -> None:
        """Writes the certificate into the thing's attributes: of two runs at once, one can."""
        described = self.describe(thing.name)
        if described is None:
            raise CommandFailed(f"thing {thing.name} was removed meanwhile; run the command again")
        before = claimed(described)
        if before[:1] == [certificate_id]:
            return
        # Claimed since the plan was made, or this moment.
        is_taken = bool(before) and not replace
        if not is_taken:
            try:
                with explained():
                    self._set(thing.name, [certificate_id, *before], described["version"])
            except CommandFailed as error:
                if "VersionConflict" not in error.message:
                    raise
                is_taken = True
        if is_taken:
            self._withdraw(thing, certificate_id)
            raise CommandFailed(
                f"another run provisions {thing.name} at the same moment; its certificate counts, this one was withdrawn"
            )

    def _withdraw(self, thing: Thing, certificate_id: str) -> None:
        with explained():
            self._iot.delete_certificate(certificateId=certificate_id)
        thing.certificate.unlink(missing_ok=True)
        thing.marker.unlink(missing_ok=True)

    def _set(self, thing: str, certificates: list[str], version: int | None) -> None:
        expected = {} if version is None else {"expectedVersion": version}
        with explained():
            self._iot.update_thing(
                thingName=thing,
                attributePayload={"attributes": {CERTIFICATES: ",".join(certificates)}, "merge": True},
                **expected,
            )

    def _unless_absent(self, operation: str, **asked: Any) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = getattr(self._iot, operation)(**asked)
        except ClientError as error:
            if code(error) == "ResourceNotFoundException":
                return None
            with explained():
                raise
        return found


def claimed(described: dict[str, Any]) -> list[str]:
    """Ids of the certificates that a thing claims, the present one first."""
    return [one for one in described.get("attributes", {}).get(CERTIFICATES, "").split(",") if one]


def plan_thing(registry: Registry, thing: Thing, plan: Plan) -> None:
    """Plans the thing itself. It comes first and goes last, so that whatever a cut leaves is found by it.

    Raises GateRefused where provision did not make it.
    """
    described = registry.describe(thing.name)
    if described is None:
        plan.add("create", f"thing {thing.name}", "", lambda: registry.create(thing))
    elif described.get("attributes", {}).get(ENVIRONMENT) != thing.environment:
        raise GateRefused(
            f"thing {thing.name} is there and was not provisioned for {thing.environment}; choose another name"
        )
    else:
        plan.add("keep", f"thing {thing.name}")


def plan_identity(registry: Registry, thing: Thing, plan: Plan, *, replace: bool) -> None:
    """Plans certificate and membership. Raises GateRefused where the certificate isn't this folder's."""
    described = registry.describe(thing.name)
    _plan_certificate(registry, thing, described or {}, plan, replace=replace)
    if thing.group:
        if described is not None and thing.group in registry.groups(thing.name):
            plan.add("keep", f"thing {thing.name}", f"in group {thing.group}")
        else:
            plan.add(
                "update", f"thing {thing.name}", f"into group {thing.group}", lambda: registry.join(thing)
            )


def _plan_certificate(
    registry: Registry, thing: Thing, described: dict[str, Any], plan: Plan, *, replace: bool
) -> None:
    what = f"certificate of {thing.name}"
    known = claimed(described)
    if replace:
        detail = "a new key and certificate; the old one is cut off at once" if known else "key made here"
        plan.add("create", what, detail, lambda: registry.enrol(thing, replace=True))
        return
    here = keys.certificate_id(thing.certificate.read_text()) if thing.certificate.exists() else ""
    if here and not keys.belongs(thing.certificate.read_text(), thing.key):
        raise GateRefused(f"{thing.key} is not the key of {thing.certificate}; give --replace-certificate")
    if known and here not in known:
        raise GateRefused(
            f"thing {thing.name} has certificate {known[0][:12]}…, which is not in {thing.folder}; provision from the "
            "folder that has it, or give --replace-certificate"
        )
    found = registry.certificate(here) if here else None
    if here and found is None:
        raise GateRefused(
            f"{thing.certificate} is no certificate of this account; remove {thing.folder}, or give --replace-certificate"
        )
    if found is None or not known or thing.marker.exists():
        plan.add("create", what, "key made here", lambda: registry.enrol(thing, replace=False))
    elif found["status"] == "REVOKED":
        raise GateRefused(f"{what} {here[:12]}… is revoked; give --replace-certificate")
    elif (
        found["status"] != "ACTIVE"
        or known != [here]
        or found["certificateArn"] not in registry.principals(thing.name)
        or not set(thing.policies) <= set(registry.policies(found["certificateArn"]))
    ):
        plan.add("update", what, "tied and made active", lambda: registry.enrol(thing, replace=False))
    else:
        plan.add("keep", what, f"{here[:12]}…")
