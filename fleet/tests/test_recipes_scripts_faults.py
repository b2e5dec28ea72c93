# SPDX-License-Identifier: Apache-2.0
"""The recipes' scripts when the machine misbehaves: a full disk, an engine that goes, hangs or makes networks twice."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts_device import OURS, Device

TWICE = r"""
nets=$DOCKER_CALLS.nets
mkdir -p "$nets" "$nets.asked"
case "$1 $2" in
  "network inspect") [ "$(ls "$nets" | wc -l)" -eq 1 ] || exit 1; : >"$nets.asked/$WHO"; exit 0 ;;
  "network create")
    if [ -n "$(ls "$nets")" ]; then : >"$nets.asked/$WHO"; exit 1; fi
    sleep 0.3
    : >"$nets/$$"; : >"$nets.asked/$WHO"; exit ;;
  "network ls") ls "$nets"; exit ;;
  "network rm") rm "$nets/$3"; exit ;;
esac
"""
"""A docker that makes a second network of a name when asked at the same time."""


def misbehaves(device: Device, how: str) -> None:
    """Puts `how` before what the fake docker does otherwise."""
    docker = device.folder / "bin" / "docker"
    docker.write_text(docker.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{how}", 1))


def program(device: Device, name: str, script: str) -> None:
    path = device.folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def wait(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def runs(device: Device) -> int:
    return len([one for one in device.calls if one["arguments"][0] == "run"])


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_flock", [True, False])
def test_components_that_start_at_once_make_one_network(device: Device, has_flock: bool) -> None:
    misbehaves(device, TWICE)
    if has_flock and not shutil.which("flock"):
        pytest.skip("not run: flock is not installed (util-linux)")
    environment = {}
    if not has_flock:
        # The script's two seconds, in which everybody who asked at once is answered, however busy this machine is.
        program(device, "sleep", f'[ "$1" != 2 ] || until [ "$(ls {device.calls_file}.nets.asked | wc -l)" -eq 8 ]; do\n'
                f'  {shutil.which("sleep")} 0.05\ndone\n[ "$1" = 2 ] || exec {shutil.which("sleep")} "$@"')  # fmt: skip
        for name in ("sh", "env", "cat", "rm", "wc", "sleep", "sed", "sort", "tail", "cut", "tr", "date", "mkdir", "chown",
                     "chmod", "timeout", "find", "touch", "uname", "ls"):  # fmt: skip
            if not (device.folder / "bin" / name).exists():
                (device.folder / "bin" / name).symlink_to(str(shutil.which(name)))
        environment["PATH"] = str(device.folder / "bin")
    started = []
    for number in range(8):
        command, variables = device.command(
            OURS["Console"], "startup", {}, {**environment, "WHO": str(number)}
        )
        started.append(
            subprocess.Popen(
                [str(shutil.which("sh")), *command[1:]], env=variables, text=True, stderr=subprocess.PIPE
            )
        )
    said = [process.communicate(timeout=120)[1] for process in started]

    nets = list(Path(f"{device.calls_file}.nets").iterdir())
    assert len(nets) == 1, said
    assert all("ended with 0" in one for one in said), said


# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(device: Device) -> Iterator[Callable[[], None]]:
    """The device's models on a disk of their own, which the function fills."""
    models = device.directory / "models"
    models.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0755", "tmpfs", models],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("not run: a file system of the test's own needs root")

    def fill() -> None:
        with (models / "fill").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    yield fill
    subprocess.run(["umount", models], check=True)


def test_new_keys_on_a_full_disk_leave_the_old_ones(device: Device, full: Callable[[], None]) -> None:
    keys = device.directory / "models" / "trusted-keys"
    device.run("Inference", configured={"TrustedKeys": "AAAA"})
    before = {path.name: path.read_text() for path in keys.iterdir()}
    full()
    said = device.run("Inference", configured={"TrustedKeys": "BBBB,CCCC"})

    assert said.returncode == 1
    assert "is the disk full?" in said.stderr
    assert {path.name: path.read_text() for path in keys.iterdir()} == before


def test_the_same_keys_need_no_byte(device: Device, full: Callable[[], None]) -> None:
    keys = device.directory / "models" / "trusted-keys"
    device.run("Inference", configured={"TrustedKeys": "AAAA"})
    before = {path: path.stat().st_ino for path in keys.iterdir()}
    full()
    said = device.run("Inference", configured={"TrustedKeys": "AAAA"})

    assert "ended with 0" in said.stderr
    assert {path: path.stat().st_ino for path in keys.iterdir()} == before


def test_the_container_may_read_the_keys_whatever_the_nucleuss_umask(device: Device) -> None:
    command, variables = device.command(OURS["Inference"], "startup", {}, {})
    subprocess.run(command, env=variables, check=False, capture_output=True, umask=0o077, timeout=60)

    keys = device.directory / "models" / "trusted-keys"
    assert {oct(path.stat().st_mode & 0o777) for path in keys.iterdir()} == {"0o644"}
    assert keys.stat().st_mode & 0o777 == keys.parent.stat().st_mode & 0o777 == 0o755
    assert (device.directory / "state" / "inference").stat().st_mode & 0o777 == 0o700


# --- the engine ------------------------------------------------------------------------------------------------------


def test_an_engine_that_goes_away_is_waited_for_and_is_no_failure(device: Device) -> None:
    gone = device.folder / "gone"
    misbehaves(
        device,
        f'[ "$1" != version ] || [ ! -e {gone} ] || exit 1\n'
        f'if [ "$1" = run ] && [ ! -e {gone}.once ]; then touch {gone} {gone}.once; exit 125; fi\n',
    )
    command, variables = device.command(OURS["Console"], "startup", {}, {"DOCKER_ENDS_WITH": "7"})
    with subprocess.Popen(
        command, env=variables, cwd=device.folder, text=True, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "Docker went away; linewatch-console runs again" in line
        gone.unlink()
        assert process.wait(60) == 7
    assert runs(device) == 1  # the one that ended the engine was not written down


def test_an_engine_that_is_back_before_it_is_asked_was_lost_all_the_same(device: Device) -> None:
    """As where systemd holds the socket: the call waits in it until the engine is back."""
    times = device.folder / "times"
    program(device, "cut", f'echo . >>{times}; case $* in *" 1 /proc/uptime") echo $(($(wc -l <{times}) * 20)) ;;'
            f' *) exec {shutil.which("cut")} "$@" ;; esac')  # fmt: skip
    once = device.folder / "once"
    misbehaves(device, f'if [ "$1" = run ] && [ ! -e {once} ]; then touch {once}; exit 125; fi\n')
    said = device.run("Console", DOCKER_ENDS_WITH="7")

    assert said.returncode == 7
    assert "Docker went away" in said.stderr


def test_what_docker_refuses_at_once_is_a_failure(device: Device) -> None:
    said = device.run("Console", DOCKER_ENDS_WITH="125")

    assert said.returncode == 125
    assert runs(device) == 1


def test_an_engine_that_hangs_is_asked_again_and_the_message_comes_before_the_steps_end(
    device: Device,
) -> None:
    # Ten seconds of `timeout` are one here, and each look at the clock is 30 s later.
    times = device.folder / "times"
    program(device, "cut", f"echo . >>{times}; echo $(($(wc -l <{times}) * 30))")
    program(device, "timeout", f'shift 3; exec {shutil.which("timeout")} -s KILL 1 "$@"')
    misbehaves(device, '[ "$1" != version ] || exec sleep 600\n')
    said = device.run("Console")

    assert said.returncode == 1
    assert "Docker does not answer" in said.stderr
    assert len(times.read_text().split()) <= 11


def test_a_stop_while_it_waits_for_docker_starts_nothing(device: Device) -> None:
    asked = device.folder / "asked"
    misbehaves(device, f'[ "$1" != version ] || [ ! -e {asked}.not ] || exit 0\n'
               f'[ "$1" != version ] || exec sh -c "touch {asked}; exit 1"\n')  # fmt: skip
    command, variables = device.command(OURS["Console"], "startup", {}, {})
    with subprocess.Popen(command, env=variables, start_new_session=True) as process:
        wait(asked.exists, "the script asked for Docker")
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    assert runs(device) == 0


def test_what_a_start_that_was_ended_left_is_removed_and_only_that(device: Device) -> None:
    """The shell is killed with its container just made: whoever removes the component does not come by again."""
    started = device.folder / "started"
    command, variables = device.command(
        OURS["Console"], "startup", {}, {"DOCKER_STAYS": str(started), "DOCKER_PS": "abc"}
    )
    with subprocess.Popen(command, env=variables, start_new_session=True) as process:
        wait(started.exists, "docker run was called")
        os.killpg(process.pid, signal.SIGTERM)
        process.kill()
    wait(
        lambda: ["rm", "-f", "abc"] in [one["arguments"] for one in device.calls], "what was left is removed"
    )

    arguments = device.service["arguments"]
    label = arguments[arguments.index("--label") + 1]
    assert label.startswith("io.linewatch.start=")
    asked = [one["arguments"] for one in device.calls if one["arguments"][0] == "ps"]
    assert asked
    assert all(f"label={label}" in one for one in asked)


# --- files that others put there -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ca.pem", "certificate.pem", "key.pem"])
@pytest.mark.parametrize("damage", ["missing", "empty", "link"])
def test_each_file_of_the_uplink_has_to_be_one(device: Device, name: str, damage: str) -> None:
    file, other = device.directory / "uplink" / name, device.folder / "other"
    other.write_text("of root")
    owner = other.stat().st_uid
    file.unlink()
    if damage == "empty":
        file.touch()
    if damage == "link":
        file.symlink_to(other)
    said = device.run("Forwarder", configured={"UplinkHost": "abc"})

    assert said.returncode == 1
    assert f"uplink/{name}: " + ("is a link" if damage == "link" else "missing or empty") in said.stderr
    assert other.stat().st_uid == owner
    assert runs(device) == 0


@pytest.mark.parametrize(("propagation", "mode"), [("private", "ro"), ("shared", "ro,rslave"), ("", "ro")])
def test_a_share_that_is_mounted_later_is_seen_where_docker_can(
    device: Device, propagation: str, mode: str
) -> None:
    program(device, "findmnt", f"echo {propagation}")
    device.run("Capture")

    assert f"{device.directory}/source:/source:{mode}" in device.service["arguments"]
