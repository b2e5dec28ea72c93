# SPDX-License-Identifier: Apache-2.0
"""Findings from whoever found them, held against limits and waivers; without any registry."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from linewatch_fleet.config import Gate, Waiver
from linewatch_fleet.copying import Content
from linewatch_fleet.errors import BadInput
from linewatch_fleet.findings import Finding, Scan, counting, known_severity, read_reports
from linewatch_fleet.gate import judged_platforms, judged_scans, judged_waivers
from linewatch_fleet.manifest import Image, Release, Template
from linewatch_fleet.oci import Manifest
from linewatch_plant.oci_images import CONFIG, INDEX, LAYER, MANIFEST

TODAY = date(2026, 11, 21)
AMD64, ARM64 = "linux/amd64", "linux/arm64"


def manifest(letter: str) -> Manifest:
    layer = {"mediaType": LAYER, "digest": "sha256:" + "0" * 64, "size": 1}
    config = {"mediaType": CONFIG, "digest": "sha256:" + letter * 64, "size": 1}
    return Manifest(
        json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).encode(),
        MANIFEST,
    )


def content(*platforms: str) -> Content:
    of = {platform: manifest("ab"[number]) for number, platform in enumerate(platforms)}
    listed = [{"mediaType": MANIFEST, "digest": one.digest, "size": len(one.content)} for one in of.values()]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    return Content(Manifest(json.dumps(index).encode(), INDEX), platforms=of)


CAPTURE = content(AMD64, ARM64)


def release(**platforms: list[str]) -> Release:
    images = {name.replace("_", "-"): Image(repository=f"linewatch/{name}", digest="sha256:" + "1" * 64, platforms=of)  # type: ignore[arg-type]
              for name, of in platforms.items()}  # fmt: skip
    template = Template(path="cloud/template.yaml", digest="sha256:" + "2" * 64)
    return Release(
        version="1.0.0",
        commit="0" * 40,
        created=datetime(2026, 11, 20, tzinfo=UTC),
        images=images,
        cloud=template,
    )


def trivy(name: str, *severities: str, **metadata: Any) -> dict[str, Any]:
    found = [
        {"VulnerabilityID": f"CVE-2026-{number}", "Severity": one, "PkgName": "p"}
        for number, one in enumerate(severities)
    ]
    return {
        "SchemaVersion": 2,
        "ArtifactName": name,
        "Metadata": metadata,
        "Results": [{"Target": "t"}, {"Vulnerabilities": found}],
    }


def grype(digest: str, *severities: str) -> dict[str, Any]:
    found = [{"vulnerability": {"id": f"CVE-2026-{number}", "severity": one}, "artifact": {"name": "p"}}
             for number, one in enumerate(severities)]  # fmt: skip
    return {
        "matches": found,
        "source": {
            "type": "image",
            "target": {"userInput": "x", "manifestDigest": digest, "repoDigests": []},
        },
    }


def written(place: Path, *reports: dict[str, Any]) -> list[Path]:
    paths = [place / f"{number}.json" for number, _ in enumerate(reports)]
    for path, report in zip(paths, reports, strict=True):
        path.write_text(json.dumps(report))
    return paths


def test_reports_of_trivy_and_grype_are_told_apart_and_find_their_platform(tmp_path: Path) -> None:
    amd64, arm64 = (CAPTURE.platforms[one].digest for one in (AMD64, ARM64))
    paths = written(
        tmp_path,
        trivy(f"r/linewatch/capture@{amd64}", "HIGH", "UNKNOWN"),
        grype(arm64, "Critical", "Negligible"),
    )

    scans = {scan.platform: scan for scan in read_reports(paths, {"capture": CAPTURE})}

    assert [one.severity for one in scans[AMD64].findings] == ["HIGH", "UNDEFINED"]
    assert [one.severity for one in scans[ARM64].findings] == ["CRITICAL", "INFORMATIONAL"]


def test_trivys_image_id_is_the_configurations_digest(tmp_path: Path) -> None:
    paths = written(tmp_path, trivy("capture.tar", "LOW", ImageID="sha256:" + "b" * 64))

    assert [scan.platform for scan in read_reports(paths, {"capture": CAPTURE})] == [ARM64]


def test_the_digest_of_an_index_of_two_platforms_tells_no_platform(tmp_path: Path) -> None:
    paths = written(tmp_path, trivy(f"r/linewatch/capture@{CAPTURE.index.digest}"))

    with pytest.raises(BadInput, match="about none of the release's images"):
        read_reports(paths, {"capture": CAPTURE})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{}]}]}',
        '{"matches": [], "source": {}}',
    ],
)
def test_what_is_no_report_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)

    with pytest.raises(BadInput, match=r"report\.json"):
        read_reports([tmp_path / "report.json"], {"capture": CAPTURE})


@pytest.mark.parametrize(
    ("named", "known"),
    [
        ("critical", "CRITICAL"),
        ("Negligible", "INFORMATIONAL"),
        ("UNTRIAGED", "UNDEFINED"),
        (None, "UNDEFINED"),
        ("new", "UNDEFINED"),
    ],
)
def test_severities_are_ecrs(named: str | None, known: str) -> None:
    assert known_severity(named) == known


def test_a_finding_of_one_package_counts_once() -> None:
    scan = Scan(
        "capture",
        AMD64,
        "test",
        [Finding("CVE-1", "HIGH", "a"), Finding("CVE-1", "HIGH", "a"), Finding("CVE-1", "HIGH", "b")],
    )

    assert [one.package for one in counting(scan, [], TODAY)[0]] == ["a", "b"]


@pytest.mark.parametrize(
    ("until", "images", "is_waived"),
    [
        (TODAY, [], True),
        (date(2026, 11, 20), [], False),
        (TODAY, ["capture"], True),
        (TODAY, ["forwarder"], False),
    ],
)
def test_a_waiver_holds_for_its_images_through_its_last_day(
    until: date, images: list[str], is_waived: bool
) -> None:
    waiver = Waiver(id="CVE-1", reason="never reached here", until=until, images=images)
    scan = Scan("capture", AMD64, "test", [Finding("CVE-1", "CRITICAL", "a")])

    (condition,) = judged_scans(Gate(waivers=[waiver]), [scan], TODAY)

    assert condition.is_met is is_waived
    assert bool(list(judged_waivers(Gate(waivers=[waiver]), TODAY))) is (until < TODAY)


def test_a_severity_without_a_limit_is_shown_and_not_held() -> None:
    scan = Scan("capture", AMD64, "test", [Finding("CVE-1", "MEDIUM", "a")] * 3)

    (condition,) = judged_scans(Gate(), [scan], TODAY)

    assert condition.is_met
    assert "1 MEDIUM" in condition.detail


@pytest.mark.parametrize(("scan", "is_met"), [("required", False), ("if-present", True)])
def test_a_missing_scan(scan: Any, is_met: bool) -> None:
    (condition,) = judged_scans(
        Gate(scan=scan), [Scan("capture", AMD64, "ECR", missing="there is no scan")], TODAY
    )

    assert condition.is_met is is_met


def test_if_present_does_not_excuse_what_was_found() -> None:
    scan = Scan("capture", AMD64, "ECR", [Finding("CVE-1", "CRITICAL", "a")])

    (condition,) = judged_scans(Gate(scan="if-present"), [scan], TODAY)

    assert not condition.is_met


@pytest.mark.parametrize(
    ("in_registry", "in_release", "is_met"),
    [([AMD64, ARM64], [AMD64, ARM64], True), ([AMD64], [AMD64, ARM64], False), ([AMD64], [AMD64], False),
     ([AMD64, ARM64], [AMD64], False)],
)  # fmt: skip
def test_platforms(in_registry: list[str], in_release: list[str], is_met: bool) -> None:
    (condition,) = judged_platforms(Gate(), release(capture=in_release), {"capture": content(*in_registry)})

    assert condition.is_met is is_met


def test_a_variant_is_for_its_own_platform_only() -> None:
    made = release(inference=[AMD64, ARM64], inference_jetson=[ARM64])
    contents = {"inference": CAPTURE, "inference-jetson": content(ARM64)}

    assert all(one.is_met for one in judged_platforms(Gate(), made, contents))
