# SPDX-License-Identifier: Apache-2.0
"""Whether a release may enter an environment: every condition of its gate, each with what was found.

All conditions are looked at, also after one that is not met: whoever is refused sees everything at once.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from linewatch_fleet.config import Gate
from linewatch_fleet.copying import Content, Copy
from linewatch_fleet.findings import Scan, counting
from linewatch_fleet.images import VARIANTS
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
        told = set(release.images[name].platforms)
        # A variant is for one kind of device, and built for nothing else.
        wanted = set(gate.platforms) & told if name in VARIANTS else set(gate.platforms)
        lacking = wanted - found
        unlike = found ^ told
        detail = ", ".join(sorted(found))
        if lacking:
            detail += f"; lacks {', '.join(sorted(lacking))}: build with make images PLATFORMS=..."
        elif unlike:
            detail += f"; the release says {', '.join(sorted(told))}"
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
        found, waived = counting(scan, gate.waivers, today)
        counts = Counter(one.severity for one in found)
        over = {severity: most for severity, most in gate.max_findings.items() if counts[severity] > most}
        if over:
            limits = "; ".join(
                f"{counts[severity]} {severity}, at most {most}" for severity, most in over.items()
            )
            named = dict.fromkeys(one.id for one in found if one.severity in over)
            detail = f"{limits}; such as {', '.join(list(named)[:5])}"
        else:
            detail = ", ".join(f"{count} {severity}" for severity, count in counts.items()) or "nothing found"
        if waived:
            detail += f"; waived: {', '.join(sorted({one.id for one in waived}))}"
        yield Condition("scan", about, not over, f"{detail} ({scan.origin})")


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
