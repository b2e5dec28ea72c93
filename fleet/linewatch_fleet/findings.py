# SPDX-License-Identifier: Apache-2.0
"""What vulnerability scans found: ECR's own (ecr.py), or a report file of Trivy or Grype, tied to an image by digest."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, get_args

from linewatch_fleet.config import Severity, Waiver
from linewatch_fleet.copying import Content
from linewatch_fleet.errors import BadInput

_SEVERITIES: Final = get_args(Severity)
_OTHER_NAMES: Final = {"NEGLIGIBLE": "INFORMATIONAL", "UNKNOWN": "UNDEFINED", "UNTRIAGED": "UNDEFINED"}
"""Grype's, Trivy's and Inspector's names for what ECR calls otherwise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One vulnerability of one package."""

    id: str
    severity: str
    package: str


@dataclass(slots=True)
class Scan:
    """What is known of one platform of one image."""

    image: str
    platform: str
    origin: str
    findings: list[Finding] = field(default_factory=list)
    missing: str = ""
    """Why there are no findings to be had; empty: the scan is there."""


def known_severity(name: Any) -> str:
    """ECR's name of a severity, whoever's it is. What nobody knows is UNDEFINED."""
    upper = str(name or "").upper()
    upper = _OTHER_NAMES.get(upper, upper)
    return upper if upper in _SEVERITIES else "UNDEFINED"


def counting(scan: Scan, waivers: Iterable[Waiver], today: date) -> tuple[list[Finding], list[Finding]]:
    """The findings that count, worst first and each once, and those that a waiver takes out."""
    waived_ids = {
        one.id for one in waivers if one.until >= today and (not one.images or scan.image in one.images)
    }
    found = sorted(set(scan.findings), key=lambda one: (_SEVERITIES.index(one.severity), one.id, one.package))
    return [one for one in found if one.id not in waived_ids], [one for one in found if one.id in waived_ids]


def read_reports(paths: Iterable[Path], images: dict[str, Content]) -> list[Scan]:
    """The reports' findings. Raises BadInput for a file that is none, or that is about none of the images."""
    scans: dict[tuple[str, str], Scan] = {}
    for path in paths:
        report = _read(path)
        kind, names, findings = _trivy(report, path) if "SchemaVersion" in report else _grype(report, path)
        about = _about(names, images)
        if about is None:
            raise BadInput(
                f"{path}: this {kind} report is about none of the release's images: it names {', '.join(sorted(names)) or 'no digest'}; "
                "scan each platform by its digest, as docs/promoting.md shows"
            )
        scan = scans.setdefault(about, Scan(*about, origin=f"{kind} report {path}"))
        scan.findings += findings
    return list(scans.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: can't be read as a JSON report of Trivy or Grype: {error}") from error
    if not isinstance(report, dict) or not ({"SchemaVersion", "matches"} & set(report)):
        raise BadInput(f"{path}: is no JSON report of Trivy (--format json) or Grype (-o json)")
    return report


def _about(names: set[str], images: dict[str, Content]) -> tuple[str, str] | None:
    """The image and platform that a report is about, told by the digest of its manifest or configuration.

    The digest of an index alone tells the image and not the platform, and is not enough.
    """
    for image, content in images.items():
        for platform, manifest in content.platforms.items():
            config = manifest.config
            is_only = len(content.platforms) == 1
            own = {
                manifest.digest,
                *([config.digest] if config else []),
                *([content.index.digest] if is_only else []),
            }
            if own & names:
                return image, platform
    return None


def _trivy(report: dict[str, Any], path: Path) -> tuple[str, set[str], list[Finding]]:
    try:
        metadata = report.get("Metadata") or {}
        named = [
            report.get("ArtifactName", ""),
            metadata.get("ImageID", ""),
            *(metadata.get("RepoDigests") or []),
        ]
        findings = [
            Finding(one["VulnerabilityID"], known_severity(one.get("Severity")), one.get("PkgName", ""))
            for result in report.get("Results") or []
            for one in result.get("Vulnerabilities") or []
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: is no Trivy report that can be read: {error!r}") from error
    return "Trivy", set(_digests(named)), findings


def _grype(report: dict[str, Any], path: Path) -> tuple[str, set[str], list[Finding]]:
    try:
        target = report["source"]["target"]
        named = [target.get("userInput", ""), target.get("manifestDigest", ""), target.get("imageID", ""),
                 *(target.get("repoDigests") or [])]  # fmt: skip
        findings = [
            Finding(
                one["vulnerability"]["id"],
                known_severity(one["vulnerability"].get("severity")),
                one["artifact"]["name"],
            )
            for one in report["matches"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: is no Grype report that can be read: {error!r}") from error
    return "Grype", set(_digests(named)), findings


def _digests(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        _, found, digest = str(name).rpartition("sha256:")
        if found:
            yield f"sha256:{digest}"
