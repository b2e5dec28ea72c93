# SPDX-License-Identifier: Apache-2.0
"""Words are under test: what the pages name has to exist."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    page
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("services/*/README.md"),
        ROOT / "cloud/README.md",
    ]
    if page.exists()
]


def verbs() -> set[str]:
    listing = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in listing.splitlines() if line.strip().startswith("make ")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_test_that_the_readme_names_exists() -> None:
    named = re.findall(
        r"`((?:\w+/)+tests?(?:/[\w.]+)*|tests/[\w./]+)(?:::(\w+))?`", (ROOT / "README.md").read_text()
    )
    assert len(named) > 10
    for path, test in named:
        found = list(ROOT.glob(path))
        assert found, path
        if test:
            assert f"def {test}(" in found[0].read_text(), f"{path}::{test}"


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/compose.md"],
    ids=lambda page: page.name,
)
def test_every_make_verb_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text())) | set(
        re.findall(r"^make ([a-z-]+)", page.read_text(), re.M)
    )
    assert named - verbs() == set()


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_the_upgrade_that_is_to_be_copied_takes_the_account_before_the_devices(environment: str) -> None:
    block = (ROOT / "docs/upgrading.md").read_text().partition("```sh\n")[2].partition("```")[0]
    verbs = re.findall(rf"linewatch (\w+) {environment}\b", block)

    assert verbs[:4] == ["provision", "promote", "publish", "deploy"]


def test_every_decision_has_its_four_parts() -> None:
    for record in (ROOT / "docs/decisions").glob("*.md"):
        text = record.read_text()
        for part in ("**Status**", "**Context**", "**Decision**", "**Consequences**"):
            assert part in text, f"{record.name} lacks {part}"


def test_no_registry_and_no_path_of_a_machine_is_committed() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    hosts = re.compile(
        r"https?://(files|registry|deb|security)\.[a-z]+\.org|https?://py[a-z]+\.org|\"resolved\":"
    )
    wrong = []
    for name in filter(None, listing.split("\0")):
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".txt", ".toml", ".yml", ".yaml", ".json", ".sh", ""}
            and path.is_file()
            and hosts.search(path.read_text(errors="ignore"))
        ):
            wrong.append(name)
    assert wrong == []
