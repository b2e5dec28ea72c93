# SPDX-License-Identifier: Apache-2.0
"""`linewatch release` in a small checkout of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from linewatch_fleet.manifest import read_release
from linewatch_fleet.recipes import archive
from linewatch_fleet.signing import make_keys, signer

BOTH = ("linux/amd64", "linux/arm64")
ROOT = Path(__file__).resolve().parents[2]
COMMIT_TIME = datetime(2024, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit with all that a release is made of, and images built from it."""
    place = tmp_path / "checkout"
    for path, content in {
        "VERSION": "0.9.0\n",
        ".gitignore": (ROOT / ".gitignore").read_text(),
        "cloud/template.yaml": "Resources: {}\n",
        "recipes/Capture.json": "{}\n",
        "recipes/run.sh": "true\n",
        "models/trusted-keys/models.pem": "key\n",
        "models/cells/releases/1.9.0/metadata.json": "{}\n",
        "models/cells/releases/1.10.0/metadata.json": '{"newer": true}\n',
    }.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(content)
    git(place, "init", "-q")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "first")
    write_images(place)
    return place


def git(place: Path, *arguments: str) -> str:
    stamp = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
             for what, value in (("NAME", "t"), ("EMAIL", "t@t"), ("DATE", COMMIT_TIME.isoformat()))}  # fmt: skip
    done = subprocess.run(
        ["git", *arguments],
        cwd=place,
        env={**os.environ, **stamp},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def write_images(place: Path, **changed: Any) -> None:
    names = ("broker", "capture", "console", "forwarder", "inference", "plant")
    content = {
        "schema": "linewatch.images/v1", "commit": git(place, "rev-parse", "HEAD"), "dirty": False, "version": "0.9.0",
        "registry": "127.0.0.1:5000",
        "images": {name: {"repository": f"linewatch/{name}", "digest": "sha256:" + f"{number}" * 64, "sbom": {},
                          "platforms": {one: {"digest": "sha256:" + "a" * 64, "total_gzip_bytes": 1} for one in BOTH}}
                   for number, name in enumerate(names)},
    } | changed  # fmt: skip
    (place / "build").mkdir(exist_ok=True)
    (place / "build" / "images.json").write_text(json.dumps(content))


def junit(place: Path, counts: str, started: datetime = COMMIT_TIME + timedelta(hours=1)) -> str:
    path = place / "build" / "junit.xml"
    path.write_text(
        f'<testsuites><testsuite name="pytest" {counts} timestamp="{started.isoformat()}"/></testsuites>'
    )
    return str(path)


def release(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "linewatch_fleet.cli", "release", *arguments],
                          cwd=place, capture_output=True, text=True, check=False, timeout=120)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_it_pins_everything_of_the_commit(checkout: Path) -> None:
    report = junit(checkout, 'tests="12" failures="1" errors="1" skipped="2"')

    done = release(checkout, "--test-report", report)

    assert done.returncode == 0, done.stderr
    made = read_release(checkout / "release.yaml")
    assert (made.version, made.commit, made.created, made.dirty) == (
        "0.9.0", git(checkout, "rev-parse", "HEAD"), COMMIT_TIME, False,
    )  # fmt: skip
    assert list(made.images) == ["broker", "capture", "console", "forwarder", "inference"], (
        "the plant is for trying"
    )
    assert made.images["capture"].platforms == list(BOTH)
    newest = checkout / "models/cells/releases/1.10.0"
    assert (made.models["cells"].version, made.models["cells"].digest) == ("1.10.0", archive.digest(newest))
    assert set(made.recipes) == {"Capture.json", "run.sh", "models.pem"}
    assert made.test_report
    assert (made.test_report.passed, made.test_report.failed, made.test_report.skipped) == (8, 2, 2)


def test_the_same_commit_makes_the_same_bytes(checkout: Path) -> None:
    assert release(checkout).returncode == 0
    first = (checkout / "release.yaml").read_bytes()
    (checkout / "release.yaml").unlink()

    assert release(checkout).returncode == 0
    assert (checkout / "release.yaml").read_bytes() == first


def test_the_signature_is_of_the_file_as_it_lies_there(checkout: Path) -> None:
    make_keys(checkout / "keys/release.key", checkout / "keys/release.pem", b"geheim")
    (checkout / "keys" / "password").write_text("geheim\n")

    done = release(checkout, "--key", "keys/release.key", "--password-file", "keys/password")

    assert done.returncode == 0, done.stderr
    content, signature = (
        (checkout / "release.yaml").read_bytes(),
        (checkout / "release.yaml.sig").read_bytes(),
    )
    assert signer(content, signature, [checkout / "keys/release.pem"])
    assert release(checkout, "verify", "--public-key", "keys/release.pem").returncode == 0
    (checkout / "release.yaml").write_bytes(content.replace(b"version: 0.9.0", b"version: 0.9.1"))
    assert release(checkout, "verify", "--public-key", "keys/release.pem").returncode == 3


def test_a_trusted_key_that_is_not_there_is_named_when_a_signature_is_judged(checkout: Path) -> None:
    (checkout / "fleet.yaml").write_text((ROOT / "fleet.example.yaml").read_text())
    assert release(checkout).returncode == 0

    judged = release(checkout, "verify")

    assert judged.returncode == 2
    assert "there is no file keys/release.pem" in judged.stderr
    assert "linewatch release keys" in judged.stderr


def test_keys_are_made_by_a_command_of_their_own(checkout: Path) -> None:
    assert release(checkout, "keys").returncode == 0
    assert release(checkout, "--key", "keys/release.key").returncode == 0, (
        "they don't make the tree a changed one"
    )

    again = release(checkout, "keys")

    assert again.returncode == 2
    assert "never overwritten" in again.stderr


def test_the_operators_files_are_never_the_repositorys_and_leave_a_checkout_clean(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(ROOT), str(clone))
    for path in (
        "fleet.yaml", "release.yaml", "release.yaml.sig", "linewatch-0.2.0-arm64.tar", "support.tar.gz", "keys/release.key",
        "keys/release.pem", "devices/linewatch-hall3-1/nucleus/private.pem.key", "devices/linewatch-hall3-1/device.json",
    ):  # fmt: skip
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).touch()
    write_images(clone, version=(clone / "VERSION").read_text().strip())

    asked = "from linewatch_images.__main__ import source_of_build; print(source_of_build().dirty)"
    built = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(clone / "tools")})  # fmt: skip

    assert built.stdout == "False\n"
    done = release(clone)
    assert done.returncode == 0, done.stderr
    assert not read_release(clone / "release.yaml").dirty
    git(clone, "add", ".")
    assert git(clone, "status", "--porcelain") == ""


def test_a_signature_of_another_manifest_does_not_stay(checkout: Path) -> None:
    release(checkout, "keys")
    release(checkout, "--key", "keys/release.key")
    report = junit(checkout, 'tests="1" failures="0" errors="0" skipped="0"')

    assert release(checkout, "--test-report", report).returncode == 0

    assert not (checkout / "release.yaml.sig").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda place: (place / "VERSION").write_text("0.9.0 \n"),
            "the tree differs from the commit (VERSION)",
        ),
        (lambda place: (place / "new.txt").touch(), "the tree differs from the commit (new.txt)"),
        (lambda place: write_images(place, dirty=True), "built from a changed tree"),
        (lambda place: write_images(place, commit="f" * 40), "were built from ffffffffffff"),
    ],
)
def test_what_is_not_of_this_commit_is_refused_or_marked(
    checkout: Path, change: Callable[[Path], object], said: str
) -> None:
    change(checkout)

    refused = release(checkout)

    assert refused.returncode == 2
    assert said in refused.stderr
    assert not (checkout / "release.yaml").exists()
    assert release(checkout, "--allow-dirty").returncode == 0
    assert read_release(checkout / "release.yaml").dirty


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "0.8.0"}, "VERSION says 0.9.0"),
        ({"images": {}}, "lacks broker, capture, console, forwarder, inference"),
        ({"schema": "linewatch.images/v2"}, "schema"),
        ({"registry": None}, "registry"),
    ],
)
def test_wrong_images_are_named(checkout: Path, changed: dict[str, Any], said: str) -> None:
    write_images(checkout, **changed)

    refused = release(checkout)

    assert refused.returncode == 2
    assert said in refused.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<testsuite", "can't be read as a JUnit report"),
        ('<testsuites><testsuite tests="3" skipped="3"/></testsuites>', "no test ran"),
        ('<testsuite tests="1" timestamp="2024-11-19T00:00:00+00:00"/>', "before the commit"),
    ],
)
def test_a_report_that_proves_nothing_is_refused(checkout: Path, content: str, said: str) -> None:
    (checkout / "build" / "junit.xml").write_text(content)

    refused = release(checkout, "--test-report", "build/junit.xml")

    assert refused.returncode == 2
    assert said in refused.stderr


def test_dry_run_writes_nothing_and_json_is_one_document(checkout: Path) -> None:
    done = release(checkout, "--dry-run", "--json")

    document = json.loads(done.stdout)
    assert document["applied"] is False
    assert document["release"]["version"] == "0.9.0"
    assert not (checkout / "release.yaml").exists()


def test_outside_a_checkout_it_says_where_to_run(tmp_path: Path) -> None:
    refused = release(tmp_path)

    assert refused.returncode == 2
    assert "checkout" in refused.stderr


def test_the_real_pytest_report_is_understood(checkout: Path) -> None:
    (checkout / "build" / "test_one.py").write_text("def test_it():\n    pass\n")
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--junitxml=junit.xml", "-p", "no:cacheprovider", "--rootdir=.", "-c", "/dev/null", "test_one.py"],
                   cwd=checkout / "build", check=True, capture_output=True)  # fmt: skip

    done = release(checkout, "--test-report", "build/junit.xml")

    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((checkout / "release.yaml").read_text())["test_report"]["passed"] == 1
