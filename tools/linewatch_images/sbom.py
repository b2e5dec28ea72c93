# SPDX-License-Identifier: Apache-2.0
"""What an image consists of, as CycloneDX 1.6 JSON: read out of the image, so it holds what is installed.

Python distributions below /opt/linewatch by their metadata, the base image's packages by its package manager's own
list (Debian's or Alpine's). The same image and time make the same file.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.message import Message
from email.parser import BytesParser
from pathlib import PurePosixPath
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

DPKG_STATUS: Final = PurePosixPath("/var/lib/dpkg/status")
APK_INSTALLED: Final = (
    PurePosixPath("/lib/apk/db/installed"),
    PurePosixPath("/usr/lib/apk/db/installed"),
)
"""Before and since apk 3."""
OS_RELEASE: Final = PurePosixPath("/usr/lib/os-release")
_ALPINE_RELEASE: Final = PurePosixPath("/etc/os-release")
_LIBRARIES: Final = PurePosixPath("/opt/linewatch")
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "linewatch.io")


def wanted(path: PurePosixPath) -> bool:
    """Whether a file of the image says what is installed."""
    return path in {DPKG_STATUS, *APK_INSTALLED, OS_RELEASE, _ALPINE_RELEASE} or (
        path.name == "METADATA" and path.parent.suffix == ".dist-info" and _LIBRARIES in path.parents
    )


def bill_of_materials(
    files: Mapping[PurePosixPath, bytes], *, name: str, version: str, digest: str, created: datetime
) -> str:
    """The document. The digest is the image's for one platform."""
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, digest))
    bom.metadata.timestamp = created
    bom.metadata.tools.components.clear()
    bom.metadata.component = image = Component(
        name=name, version=version, type=ComponentType.CONTAINER, bom_ref=digest,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest.partition(":")[2])],
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )  # fmt: skip
    components = {str(component.purl): component for component in _components(files)}
    bom.components.update(components[purl] for purl in sorted(components))
    bom.register_dependency(image, bom.components)
    text: str = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    return text + "\n"


def _components(files: Mapping[PurePosixPath, bytes]) -> Iterator[Component]:
    release = _distribution(files)
    for path, data in files.items():
        if path.name == "METADATA":
            yield _python(BytesParser().parsebytes(data, headersonly=True))
    if DPKG_STATUS in files:
        for block in files[DPKG_STATUS].decode().split("\n\n"):
            if "Status: install ok installed" in block:
                yield _system("deb", release, _fields(block, r"^([A-Z][\w-]*): (.*)$"))
    for listed in APK_INSTALLED:
        for block in files.get(listed, b"").decode().split("\n\n"):
            told = _fields(block, r"^([A-Z]):(.*)$")
            if "P" in told:
                yield _system(
                    "apk", release, {"Package": told["P"], "Version": told["V"], "Architecture": told["A"]}
                )


def _python(metadata: Message) -> Component:
    name, version = str(metadata["Name"]), str(metadata["Version"])
    purl = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", name).lower(), version)
    expression = metadata["License-Expression"]
    classified = [
        str(line).rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if str(line).startswith("License :: ")
    ]
    known = LicenseFactory()
    licenses: list[License] = (
        [known.make_from_string(str(expression))]
        if expression
        else [DisjunctiveLicense(name=told) for told in classified]
    )
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl), licenses=licenses
    )  # fmt: skip


def _system(kind: str, release: tuple[str, str], fields: Mapping[str, str]) -> Component:
    name, version = fields["Package"], fields["Version"]
    vendor, distribution = release
    purl = PackageURL(
        kind, vendor, name, version, {"arch": fields["Architecture"], "distro": distribution}
    )  # fmt: skip
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl))


def _distribution(files: Mapping[PurePosixPath, bytes]) -> tuple[str, str]:
    """Such as ("debian", "debian-13")."""
    text = (files.get(OS_RELEASE) or files.get(_ALPINE_RELEASE) or b"").decode()
    fields = {key: value.strip('"') for key, value in _fields(text, r"^(\w+)=(.*)$").items()}
    vendor = fields.get("ID", "unknown")
    return vendor, f"{vendor}-{fields.get('VERSION_ID', 'unknown')}"


def _fields(text: str, line: str) -> dict[str, str]:
    return dict(re.findall(line, text, re.MULTILINE))
