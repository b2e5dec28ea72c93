# SPDX-License-Identifier: Apache-2.0
"""install.sh of a device's folder: files in place with owner and mode, shown before, kept when right."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from linewatch_fleet.provisioning.handover import files_of
from linewatch_fleet.provisioning.nucleus import Connection, Runtime

CONNECTION = Connection("eu-central-1", "linewatch-dev", "data.example.com", "credentials.example.com")
PLACES = {
    "classic": ("/greengrass/v2/credentials", "/greengrass/v2/linewatch-config.yaml"),
    "lite": ("/etc/greengrass/credentials", "/etc/greengrass/config.yaml"),
}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users: run as root")


def folder(place: Path, runtime: Runtime, thing: str = "linewatch-a") -> Path:
    """A device's folder as provision makes it; what the keys hold does not matter to the script."""
    made = place / thing
    for name, content in files_of(thing, runtime, CONNECTION, "2.18.0", "", b"authorities\n", {}).items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    for part in ("nucleus", "uplink"):
        for name in ("certificate.pem", "key.pem"):
            (made / part / name).write_text(f"{part} {name}\n")
    return made


def install(made: Path, root: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(made / "install.sh"), "--root", str(root), *arguments],
        input=typed, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@needs_root
@pytest.mark.parametrize("runtime", ["classic", "lite"])
def test_every_file_gets_its_place_owner_and_mode(tmp_path: Path, runtime: Runtime) -> None:
    root = tmp_path / "root"
    said = install(folder(tmp_path, runtime), root, "--yes")

    assert said.returncode == 0, said.stderr
    credentials, config = PLACES[runtime]
    for name, mode, owner in (
        (f"{credentials}/key.pem", 0o600, 0),
        (f"{credentials}/certificate.pem", 0o644, 0),
        (config, 0o644, 0),
        ("/var/lib/linewatch/uplink/key.pem", 0o600, 10001),
        ("/var/lib/linewatch/uplink/ca.pem", 0o644, 10001),
    ):
        found = (root / name[1:]).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (mode, owner), name
    assert stat.S_IMODE((root / credentials[1:]).stat().st_mode) == 0o700
    assert "thingName: linewatch-a" in (root / config[1:]).read_text()
    waits = root / "etc/systemd/system/greengrass.service.d/10-after-docker.conf"
    assert waits.exists() is (runtime == "classic")


@needs_root
def test_a_second_run_keeps_all_and_a_new_certificate_is_put_into_place(tmp_path: Path) -> None:
    made, root = folder(tmp_path, "classic"), tmp_path / "root"
    install(made, root, "--yes")

    again = install(made, root)
    (made / "nucleus" / "certificate.pem").write_text("another\n")
    (made / "nucleus" / "key.pem").write_text("another\n")
    renewed = install(made, root, "--yes")

    assert again.returncode == 0
    assert "everything is in place" in again.stdout
    assert "wrote" not in again.stdout
    assert renewed.stdout.count("wrote") == 2
    assert (root / "greengrass/v2/credentials/key.pem").read_text() == "another\n"
    assert stat.S_IMODE((root / "greengrass/v2/credentials/key.pem").stat().st_mode) == 0o600


@needs_root
@pytest.mark.parametrize(
    ("arguments", "typed", "code"), [(("--dry-run",), "", 0), ((), "n\n", 1), ((), "", 1)]
)
def test_nothing_is_written_before_somebody_agrees(
    tmp_path: Path, arguments: tuple[str, ...], typed: str, code: int
) -> None:
    root = tmp_path / "root"

    said = install(folder(tmp_path, "classic"), root, *arguments, typed=typed)

    assert said.returncode == code
    assert "write  /greengrass/v2/credentials/key.pem (0:0, mode 600)" in said.stdout
    assert not root.exists()


@needs_root
def test_a_device_that_is_another_thing_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    install(folder(tmp_path, "classic"), root, "--yes")

    said = install(folder(tmp_path, "classic", "linewatch-b"), root, "--yes")

    assert said.returncode == 1
    assert "this device is linewatch-a" in said.stderr
    assert "thingName: linewatch-a" in (root / "greengrass/v2/linewatch-config.yaml").read_text()


@needs_root
def test_lite_is_not_put_beside_the_classic_nucleus(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "greengrass/v2/alts/current").mkdir(parents=True)

    said = install(folder(tmp_path, "lite"), root, "--yes")

    assert said.returncode == 1
    assert "the classic nucleus is installed here" in said.stderr


def test_a_folder_that_lacks_a_file_and_a_wrong_option_are_told(tmp_path: Path) -> None:
    made = folder(tmp_path, "classic")
    (made / "uplink" / "key.pem").unlink()

    assert "uplink/key.pem is missing" in install(made, tmp_path / "root").stderr
    assert install(made, tmp_path / "root", "--what").returncode == 2
    assert "--installer DIR" in install(made, tmp_path / "root", "--help").stdout


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    said = subprocess.run(
        [str(shellcheck), "-s", "dash", str(folder(tmp_path, "classic") / "install.sh")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert said.returncode == 0, said.stdout
