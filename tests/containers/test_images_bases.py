# SPDX-License-Identifier: Apache-2.0
"""An engine and base images from Debian's packages: tools/containers/engine and tools/containers/bases."""

import os
import re
import shutil
import struct
import subprocess
import tarfile

import pytest
from built_images import LABEL, ROOT, docker

pytestmark = pytest.mark.containers

REGISTRY = "127.0.0.1:5000/library"
STAND_INS = pytest.mark.parametrize("image", ["python:3.13-slim-trixie", "eclipse-mosquitto:2.0.21"])
MACHINE = {"linux/amd64": 62, "linux/arm64": 183}

# In namespaces of its own, with empty folders in the place of the machine's: the engine of this machine sees nothing of it.
LIFE = """
set -euo pipefail
mount --make-rprivate /
for folder in /var/lib/docker /run /var/lib/linewatch-engine; do mount -t tmpfs tmpfs $folder; done
ip link set lo up
state=/var/lib/linewatch-engine
try() {
  echo "== $1"
  tools/containers/engine 2>&1
  docker info --format '{{.DriverStatus}} {{.RegistryConfig.Mirrors}}'
  python3 -c 'import urllib.request as u; print("registry", u.urlopen("http://127.0.0.1:5000/v2/", timeout=60).status)'
}
# Gone before the next try: a process that was killed is there a little longer on a busy machine.
dead() { kill -9 "$@"; local one; for one in "$@"; do timeout 60 tail --pid="$one" -f /dev/null; done; }
try nothing
try again
dead $(cat $state/dockerd.pid)
try killed
dead $(cat $state/dockerd.pid) $(cat /run/docker/containerd/containerd.pid)
try 'killed with containerd'
dead $(pgrep -f "serve $state/registry.yml")
try 'registry killed'
sed -i s/10m/9m/ $state/daemon.json
try 'other settings'
ip link delete docker0
try 'no bridge'
ip link show docker0
"""


def test_the_engine_comes_up_from_nothing_and_again_after_any_kill() -> None:
    if os.geteuid() != 0 or not all(
        shutil.which(program) for program in ("dockerd", "docker-registry", "unshare")
    ):
        pytest.skip("not run: needs root, and the programs that tools/containers/engine installs")
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", LIFE],
        cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    lives = dict(part.split("\n", 1) for part in done.stdout.split("== ")[1:])
    for life in lives.values():
        assert "containerd.snapshotter" in life
        assert "http://127.0.0.1:5000" in life
        assert "registry 200" in life
    said = {
        # What this kernel can't emulate is said each time, and is nothing that the engine needs.
        name: [
            line
            for line in life.splitlines()
            if line.startswith("engine: ") and "overlayfs" not in line and "no arm64 emulation" not in line
        ]
        for name, life in lives.items()
    }
    started = "engine: starting dockerd"
    registry = "engine: starting a registry on 127.0.0.1:5000"
    assert said == {
        "nothing": [registry, started], "again": [], "killed": [started], "killed with containerd": [started],
        "registry killed": [registry],
        "other settings": ["engine: the engine that this script started has other settings now: starting it again", started],
        "no bridge": ["engine: putting the default bridge back"],
    }  # fmt: skip


@STAND_INS
def test_the_arm64_stand_in_holds_arm64_programs_only_and_the_same_packages(engine: None, image: str) -> None:
    done = subprocess.run(
        ["docker", "buildx", "imagetools", "inspect", "--raw", f"{REGISTRY}/{image}"], capture_output=True, text=True, check=False
    )  # fmt: skip
    if '"arm64"' not in done.stdout:
        pytest.skip(
            "not run: no registry on loopback with an arm64 base image; tools/containers/engine starts one"
        )
    machines, packages = {}, {}
    for platform in MACHINE:
        machines[platform], packages[platform] = contents(f"{REGISTRY}/{image}", platform)

    assert {platform: set(found) for platform, found in machines.items()} == {
        platform: {machine} for platform, machine in MACHINE.items()
    }
    assert packages["linux/arm64"] == packages["linux/amd64"]


def contents(image: str, platform: str) -> tuple[dict[int, str], set[tuple[str, str]]]:
    """ELF machine -> a program of it, and (package, version) as dpkg knows them; nothing is run."""
    docker("pull", "--quiet", "--platform", platform, image)
    container = docker("create", "--platform", platform, "--label", LABEL, image, "true").strip()
    machines: dict[int, str] = {}
    status = ""
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as tree,
        ):
            for member in tree:
                if member.isfile() and (data := tree.extractfile(member)):
                    head = data.read(20)
                    if head.startswith(b"\x7fELF"):
                        machines[struct.unpack_from("<H", head, 18)[0]] = member.name
                    elif member.name == "var/lib/dpkg/status":
                        status = (head + data.read()).decode()
    finally:
        docker("rm", "--force", "--volumes", container)
        docker("pull", "--quiet", image)
    fields = [
        dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        for block in status.split("\n\n")
    ]
    return machines, {
        # Debian builds a version anew for one architecture at times: +b1.
        (block["Package"], re.sub(r"\+b\d+$", "", block["Version"]))
        for block in fields
        if block.get("Status") == "install ok installed"
    }
