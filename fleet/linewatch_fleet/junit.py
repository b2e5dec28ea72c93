# SPDX-License-Identifier: Apache-2.0
"""The tests' JUnit report (`make test ARGS=--junitxml=build/junit.xml`) as it stands in a release."""

from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from linewatch_fleet.errors import BadInput
from linewatch_fleet.manifest import TestReport
from linewatch_fleet.oci import digest_of

REMEDY = "make one with: make test ARGS=--junitxml=build/junit.xml"


def read_junit(path: Path, commit_time: datetime) -> TestReport:
    """The report's counts and digest. Raises BadInput: unreadable, empty, or older than the commit."""
    try:
        content = path.read_bytes()
        # Our own CI's file; entities that explode are refused by expat since 2.4.
        root = ElementTree.fromstring(content)  # noqa: S314
        suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
        counts = {
            key: sum(int(suite.get(key, "0")) for suite in suites)
            for key in ("tests", "failures", "errors", "skipped")
        }
        started = [
            datetime.fromisoformat(text).astimezone() for suite in suites if (text := suite.get("timestamp"))
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise BadInput(f"{path}: can't be read as a JUnit report: {error}; {REMEDY}") from error
    if counts["tests"] <= counts["skipped"]:
        raise BadInput(f"{path}: no test ran; {REMEDY}")
    if started and min(started) < commit_time:
        raise BadInput(
            f"{path}: these tests ran at {min(started).isoformat()}, before the commit ({commit_time.isoformat()}); {REMEDY}"
        )
    failed = counts["failures"] + counts["errors"]
    return TestReport(
        digest=digest_of(content),
        passed=max(counts["tests"] - failed - counts["skipped"], 0),
        failed=failed,
        skipped=counts["skipped"],
    )
