# SPDX-License-Identifier: Apache-2.0
"""Volumes of a test's own: small file systems on loop devices, and one in memory, and the loss of power.

The power goes by the file system's own shutdown request without a flush of its log: what was not synced to the device
is gone, as when the plug is pulled. Not modelled: a drive that lies about its cache. Device and mount go with the block,
whatever happened in it. Root, a loop device and the maker's tool are needed; without them the test says so and skips.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import wait_for

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

GOING_DOWN = 0x8004587D
"""_IOR('X', 125, __u32): XFS_IOC_GOINGDOWN of xfs, and EXT4_IOC_SHUTDOWN of ext4."""

NO_LOG_FLUSH = (2).to_bytes(4, "little")

SMALLEST = {"xfs": 320, "ext4": 16}
"""MiB; the image is sparse."""

PACKAGE = {"xfs": "xfsprogs", "ext4": "e2fsprogs"}


OPTIONS = {"xfs": "nouuid", "ext4": "defaults"}
"""nouuid: the file system of before the power loss may still be known to the kernel."""


@dataclass(slots=True)
class Volume:
    """A mounted file system. In memory it has neither image nor device."""

    kind: str
    folder: Path
    image: Path | None = None
    device: str = ""

    def lose_power(self) -> None:
        """From here on nothing reaches the device, and every call on the volume fails."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, GOING_DOWN, NO_LOG_FLUSH)
        finally:
            os.close(folder)

    def power_returns(self) -> None:
        """Mounts what the device holds; the file system replays its log. Whoever had files open must be gone.

        On a new device over the same image: a mount name space that a container or `ip netns exec` made meanwhile may
        hold the dead file system a while longer, and a mount of the old device would give that one back.
        """
        # A process that was just killed may still be closing its files.
        wait_for(lambda: _run("umount", self.folder) == "", f"{self.folder} can be unmounted")
        old, self.device = self.device, _loop_device(self.image)
        _run("losetup", "--detach", old)
        failed = _run("mount", "-t", self.kind, "-o", OPTIONS[self.kind], self.device, self.folder)
        assert not failed, failed

    @property
    def free_bytes(self) -> int:
        """What an ordinary user may still write."""
        told = os.statvfs(self.folder)
        return told.f_bavail * told.f_frsize


class Ballast:
    """A file of somebody else that takes every block that is left, and keeps taking those that come free."""

    def __init__(self, disk: Volume) -> None:
        self._path = disk.folder / "somebody-elses.file"

    def fill(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            for size in (64 * 1024, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())

    def take_away(self) -> None:
        self._path.unlink()


@contextmanager
def volume(kind: str, base: Path, mebibytes: int = 0) -> Iterator[Volume]:
    """`kind` is xfs, ext4 or tmpfs; at least as large as the kind allows."""
    _needs_root()
    folder = base / kind
    folder.mkdir(parents=True)
    if kind == "tmpfs":
        _mounts("-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder)
        try:
            yield Volume(kind, folder)
        finally:
            _run("umount", "--lazy", folder)
        return
    _needs(f"mkfs.{kind}", PACKAGE[kind])
    _needs("losetup", "util-linux")
    image = base / f"{kind}.image"
    with image.open("wb") as file:
        file.truncate(max(mebibytes, SMALLEST[kind]) * 1024 * 1024)
    made = Volume(kind, folder, image, _loop_device(image))
    try:
        failed = _run(f"mkfs.{kind}", "-q", "-f" if kind == "xfs" else "-F", made.device)
        assert not failed, failed
        _mounts("-t", kind, made.device, folder)
        try:
            yield made
        finally:
            _run("umount", "--lazy", folder)
    finally:
        _run("losetup", "--detach", made.device)
        image.unlink()


def _loop_device(image: Path | None) -> str:
    run = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, env={"PATH": PATH}, check=False
    )  # fmt: skip
    if run.returncode != 0:
        pytest.skip(f"no loop device can be had here: {run.stderr.strip()}")
    return run.stdout.strip()


def _mounts(*arguments: object) -> None:
    failed = _run("mount", *arguments)
    if failed:
        pytest.skip(f"nothing can be mounted here: {failed}")


def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a volume")


def _needs(program: str, package: str) -> None:
    if shutil.which(program, path=PATH) is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")


def _run(*command: object) -> str:
    """What it said when it failed; empty when it did not."""
    run = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env={"PATH": PATH}, check=False
    )
    return "" if run.returncode == 0 else run.stderr.strip() or f"{command[0]}: {run.returncode}"
