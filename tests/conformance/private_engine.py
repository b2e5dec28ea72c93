# SPDX-License-Identifier: Apache-2.0
"""A Docker engine of a test's own, to be stopped and started under running components.

It lives in a network namespace of its own: a second dockerd in the host's would take away what the first one needs
(its bridge and its iptables chains). It reaches no registry; images are handed over by `docker save | docker load`.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
from brokers import wait_for


class PrivateEngine:
    """dockerd below `folder`; its address is DOCKER_HOST `address`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self._log = folder / "dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "daemon.json").write_text("{}")

    def start(self) -> None:
        (self.folder / "dockerd.pid").unlink(missing_ok=True)
        where = self.folder
        dockerd = (
            f"ip link set lo up && exec dockerd --config-file {where}/daemon.json --data-root {where}/data"
            f" --exec-root {where}/exec --pidfile {where}/dockerd.pid -H {self.address} --bridge none"
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", dockerd], stdout=log, stderr=log
            )
        wait_for(self.answers, f"the engine answers; {self._log}", 240)

    def answers(self) -> bool:
        done = subprocess.run(["docker", "version"], env={**os.environ, "DOCKER_HOST": self.address}, capture_output=True, check=False)  # fmt: skip
        return done.returncode == 0

    def load(self, image: str, tag: str) -> None:
        """Takes an image of the host's engine over, under a tag: a saved image has no digest of a repository."""
        subprocess.run(["docker", "tag", image, tag], check=True)
        try:
            with subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE) as saved:
                subprocess.run(["docker", "-H", self.address, "load", "-q"], stdin=saved.stdout, check=True, capture_output=True)  # fmt: skip
        finally:
            subprocess.run(["docker", "rmi", tag], check=False, capture_output=True)

    def stop(self) -> None:
        """As systemd stops docker.service: SIGTERM, and the containers end with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(240)
            self._process = None

    def close(self) -> None:
        self.stop()
        for mount in reversed([disk.mountpoint for disk in psutil.disk_partitions(all=True)]):
            if mount.startswith(str(self.folder)):
                with contextlib.suppress(subprocess.SubprocessError):
                    subprocess.run(["umount", "-l", mount], check=False, capture_output=True, timeout=120)


@contextlib.contextmanager
def private_engine(folder: Path) -> Iterator[PrivateEngine]:
    """Started, and gone with the block."""
    engine = PrivateEngine(folder)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()
