# SPDX-License-Identifier: Apache-2.0
"""Rules about what a script hands to a container of the device itself: files, devices, name spaces, what a kernel forbids."""

import posixpath
import re
from collections.abc import Iterator

from linewatch_fleet.recipes.docker_commands import options
from linewatch_fleet.recipes.findings import Check, Place, rule
from linewatch_fleet.recipes.reading import Recipe

_WHOLE = {
    "/", "/bin", "/boot", "/dev", "/etc", "/greengrass", "/greengrass/v2", "/home", "/lib", "/opt", "/proc", "/root",
    "/run", "/sbin", "/sys", "/usr", "/var", "/var/lib", "/var/lib/containerd", "/var/lib/docker", "/var/lib/greengrass",
    "/var/run",
}  # fmt: skip
"""Folders that nobody may be given as they are."""
_BELOW = (
    "/boot/",
    "/proc/",
    "/root/",
    "/run/containerd/",
    "/sys/",
    "/var/lib/containerd/",
    "/var/lib/docker/",
)
"""What lies below these neither."""
_DEVICES = re.compile(r"/dev($|/(k?mem|port|sd|nvme|mmcblk|vd|xvd|dm-|mapper|disk|loop|md\d|kmsg|fuse))")


def _runs(recipe: Recipe) -> Iterator[tuple[str, str]]:
    return ((f"{step.path}.Script", run) for step in recipe.steps for run in step.docker_runs)


def _found(pattern: str) -> Check:
    def check(recipe: Recipe) -> Iterator[Place]:
        for path, run in _runs(recipe):
            yield from ((path, one[0].strip()) for one in re.finditer(pattern, run))

    return check


def _mounts(run: str) -> Iterator[tuple[str, bool]]:
    """(folder of the device, whether it is only read) of each mount."""
    for value in options(run, "--volume"):
        source, *rest = value.split(":")
        yield source, "ro" in rest[-1].split(",") if rest else False
    for value in options(run, "--mount"):
        parts = dict(part.partition("=")[::2] for part in value.split(","))
        if parts.get("type") == "bind":
            yield parts.get("source", parts.get("src", "")), bool({"ro", "readonly"} & parts.keys())


@rule("host-files", "error", "Who writes there, or reads the keys there, is root on the device.",
      "Mount the one folder that it needs, of your own; :ro where it only reads.")  # fmt: skip
def _host_files(recipe: Recipe) -> Iterator[Place]:
    for path, run in _runs(recipe):
        for source, is_read_only in _mounts(run):
            if not source.startswith("/") or source.endswith("docker.sock"):
                continue
            folder = posixpath.normpath("/" + source.lstrip("/"))
            secret = folder.startswith(("/etc/shadow", "/etc/ssh", "/etc/sudoers"))
            written = folder.startswith("/etc/") and not is_read_only
            if folder in _WHOLE or f"{folder}/".startswith(_BELOW) or secret or written:
                yield path, source


@rule("host-device", "error", "Memory and disks of the device, raw: every file and every secret of it.",
      "--device for the one camera or accelerator.")  # fmt: skip
def _host_device(recipe: Recipe) -> Iterator[Place]:
    for path, run in _runs(recipe):
        for value in options(run, "--device"):
            if _DEVICES.match(posixpath.normpath(value.partition(":")[0])):
                yield path, f"--device {value}"


rule("host-namespace", "error", "It sees the device's processes or shared memory, or is the device's root again.",
     "Leave it out.")(_found(r"--(pid|ipc|uts|userns|cgroupns)[ =]host\b"))  # fmt: skip
rule("cap-add", "error", "A capability is a part of root; some are all of it.",
     "--cap-drop ALL and nothing after it; a port above 1023.")(_found(r"--cap-add[ =]\S+"))  # fmt: skip
rule("unconfined", "error", "What Docker forbids every container by seccomp, AppArmor or SELinux is allowed again.",
     "Leave it out.")(_found(r"--security-opt[ =](seccomp|apparmor|systempaths)[=:]unconfined\b|--security-opt[ =]label[=:]disable\b"))  # fmt: skip


@rule("value-run-as-code", "error", "A value of the configuration is run as a command, by root where the step is.",
      'Use values in double quotes, as arguments: "$VALUE".')  # fmt: skip
def _value_run_as_code(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        for found in re.finditer(
            r"\beval\b[^\n]*[$`][^\n]*|\b(?:ba|da|a|k|z)?sh -\w*c\s+(?:\"[^\"]*[$`]|\$)[^\n]*", step.script
        ):
            yield f"{step.path}.Script", found[0][:80]
