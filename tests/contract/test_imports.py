# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, who may print, and whose words stand where."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = sorted((ROOT / "services").glob("*/linewatch_*"))
RUNTIME = ROOT / "runtime" / "linewatch_runtime"
CLOUD = sorted(path.parent for path in (ROOT / "cloud").glob("*/__init__.py") if path.parent.name != "tests")

OWN = re.compile(r"^(linewatch(_\w+)?|open_inference)$")
SHARED = {"linewatch", "open_inference", "linewatch_runtime"}

MAY_PRINT = {
    "settings.py", "state_dir.py", "telemetry.py", "health.py",  # of the runtime: they speak before there is a log
    "__main__.py", "healthcheck.py",  # command lines: why the process can't start, what a health check found
    "dead_letters.py", "users.py",  # commands for people
}  # fmt: skip

DOMAIN_WORDS = re.compile(
    r"crack|turbofan|photovolt|solar|\bcell|engine.?cycle|remaining.?useful|\bRUL\b|heat.?map|C-?MAPSS|\bELPV\b|wafer|stringer",
    re.IGNORECASE,
)

service = pytest.mark.parametrize("package", SERVICES, ids=lambda path: path.name)


def modules(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        yield path, ast.parse(path.read_text(), str(path))


def own_imports(package: Path) -> set[str]:
    """Top-level packages of this repository that a package imports."""
    names = set()
    for _, tree in modules(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name.partition(".")[0] for name in names if OWN.match(name.partition(".")[0])}


@service
def test_service_imports_only_itself_the_runtime_and_the_protos(package: Path) -> None:
    assert own_imports(package) <= SHARED | {package.name}


def test_runtime_imports_no_service() -> None:
    assert own_imports(RUNTIME) <= {"linewatch", "linewatch_runtime"}


@pytest.mark.parametrize("package", CLOUD, ids=lambda path: path.name)
def test_cloud_imports_no_service(package: Path) -> None:
    assert not own_imports(package) & {path.name for path in SERVICES}


@pytest.mark.parametrize("package", [RUNTIME, *SERVICES], ids=lambda path: path.name)
def test_services_log_and_do_not_print(package: Path) -> None:
    printing = [
        f"{path.name}:{node.lineno}"
        for path, tree in modules(package)
        for node in ast.walk(tree)
        if path.name not in MAY_PRINT
        and isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]

    assert not printing


def test_runtime_and_forwarder_know_nothing_of_what_is_inspected() -> None:
    said = [
        f"{path.name}:{number}: {line.strip()}"
        for package in (RUNTIME, ROOT / "services" / "forwarder" / "linewatch_forwarder")
        for path in sorted(package.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if DOMAIN_WORDS.search(line)
    ]

    assert not said


def test_there_is_something_to_check() -> None:
    assert {path.name for path in SERVICES} >= {"linewatch_forwarder"}
    assert own_imports(RUNTIME)
