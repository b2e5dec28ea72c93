# SPDX-License-Identifier: Apache-2.0
"""Whether a release may enter an environment: every condition of its gate, each with what was found.

All conditions are looked at, also after one that is not met: whoever is refused sees everything at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from linewatch_fleet.config import Gate
from linewatch_fleet.copying import Content, Copy
from linewatch_fleet.findings import Scan, counted
from linewatch_fleet.manifest import Release


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition and how it came out."""

    name: str
    about: str
    is_met: bool
    detail: str

    @property
    def result(self) -> str:
        """In a word."""
        return "ok" if self.is_met else "REFUSED"


def judged_release(gate: Gate, release: Release, signed_by: str | None, how: str) -> Iterator[Condition]:
    """What the manifest itself tells."""
    built = "built from a tree that differed from the commit; commit, build and release again"
    yield Condition(
        "commit", release.commit[:12], not release.dirty, built if release.dirty else "a clean tree"
    )
    if gate.signature:
        yield Condition("signature", "release", signed_by is not None, how)
    else:
        yield Condition("signature", "release", True, f"not asked for; {how}")
    report = release.test_report
    if report is None:
        detail = "the release has no test report"
        remedy = (
            "; give one to `linewatch release` with --test-report"
            if gate.test_report
            else ", and none is asked for"
        )
        yield Condition("tests", "release", not gate.test_report, detail + remedy)
        return
    detail = f"{report.passed} passed, {report.failed} failed, {report.skipped} skipped"
    is_green = report.failed == 0 and report.passed > 0
    yield Condition("tests", "release", is_green or not gate.test_report, detail)


def judged_platforms(gate: Gate, release: Release, images: dict[str, Content]) -> Iterator[Condition]:
    """Whether the registry's own index has what the gate asks for and the manifest says."""
    for name, content in images.items():
        found = set(content.platforms)
        # A variant is for one kind of device, and built for nothing else.
        wanted = (
            set(gate.platforms)
            if "-" not in name
            else set(gate.platforms) & set(release.images[name].platforms)
        )
        lacking = wanted - found
        unlike = found ^ set(release.images[name].platforms)
        detail = ", ".join(sorted(found))
        if lacking:
            detail += f"; lacks {', '.join(sorted(lacking))}: build with make images PLATFORMS=..."
        elif unlike:
            detail += f"; the release says {', '.join(release.images[name].platforms)}"
        yield Condition("platforms", name, not lacking and not unlike, detail)


def judged_scans(gate: Gate, scans: Iterable[Scan], today: date) -> Iterator[Condition]:
    """Findings by severity against the gate's limits, for each platform of each image."""
    if gate.scan == "off":
        yield Condition("scan", "release", True, "turned off for this environment")
        return
    for scan in scans:
        about = f"{scan.image} {scan.platform}"
        if scan.missing:
            is_met = gate.scan == "if-present"
            detail = f"{scan.missing} ({scan.origin})"
            yield Condition("scan", about, is_met, detail + ("; not required here" if is_met else ""))
            continue
        counts, waived = counted(scan, gate.waivers, today)
        over = [f"{counts[severity]} {severity}, at most {most}"
                for severity, most in gate.max_findings.items() if counts[severity] > most]  # fmt: skip
        seen = (
            ", ".join(f"{count} {severity}" for severity, count in counts.items() if count) or "nothing found"
        )
        parts = [seen]
        if over:
            named = [one.id for one in scan.findings
                     if counts[one.severity] > gate.max_findings.get(one.severity, counts[one.severity]) and one not in waived]  # type: ignore[call-overload]  # fmt: skip
            parts = ["; ".join(over), "such as " + ", ".join(dict.fromkeys(named[:5]))]
        if waived:
            parts.append(f"waived: {', '.join(sorted({one.id for one in waived}))}")
        yield Condition("scan", about, not over, f"{'; '.join(parts)} ({scan.origin})")


def judged_waivers(gate: Gate, today: date) -> Iterator[Condition]:
    """Waivers that ran out, said aloud: their findings count again."""
    for waiver in gate.waivers:
        if waiver.until < today:
            yield Condition("waiver", waiver.id, True, f"ran out on {waiver.until}: the finding counts again")


def judged_tags(copies: Iterable[Copy]) -> Iterator[Condition]:
    """Whether the version is still free in the environment, or is this very image already."""
    for copy in copies:
        if copy.conflict:
            detail = f"{copy.target}:{copy.tag} is {copy.conflict} already; a version is released once: raise VERSION, build, release"
            yield Condition("version", copy.image, False, detail)
