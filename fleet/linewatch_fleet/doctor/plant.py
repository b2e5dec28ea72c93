# SPDX-License-Identifier: Apache-2.0
"""What Linewatch itself needs on this device: certificates, registry, cloud, cameras, provider, models, containers."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linewatch_fleet.doctor.finding import FAIL, NOT_CHECKED, OK, WARN, Device, Finding, look

OWNER = 10001
"""The user that every container runs as."""
SOON_S = 30 * 24 * 3600.0
REACH_S = 10.0
TITLE = "linewatch-"
"""What the title of each of our images begins with."""
UPLINK = ("ca.pem", "certificate.pem", "key.pem")


def containers(device: Device) -> Iterator[Finding]:
    """Each of ours: whether it runs, is healthy, and since when; and each service that has state here and no container."""
    found = inspected()
    running = set()
    for one in found:
        name, state = one["Name"].lstrip("/"), one["State"]
        health = state.get("Health", {}).get("Status", "no health check")
        told = f"{state['Status']}, {health}, since {state.get('StartedAt', '?')[:19].replace('T', ' ')} UTC"
        if state["Status"] == "running":
            running |= {mount.get("Source", "") for mount in one.get("Mounts", [])}
        if state["Status"] == "exited" and state["ExitCode"] == 0:
            yield Finding(name, OK, "ended, with 0")
        elif state["Status"] != "running" or health == "unhealthy":
            last = (state.get("Health", {}).get("Log") or [{}])[-1].get("Output", "").strip()
            yield Finding(name, FAIL, f"{told}: {last}"[:300].rstrip(": "), f"docker logs --tail 50 {name}")
        else:
            yield Finding(name, OK if health == "healthy" else WARN, told)
    # On a device a container that ended is gone, so a component that is BROKEN shows by its absence only.
    for part in sorted(path for path in (device.directory / "state").glob("*") if path.is_dir()):
        if str(part) not in running:
            yield Finding(
                f"component {part.name}", FAIL, "was here, and no container of it runs",
                "its reason: /greengrass/v2/logs/io.linewatch.*.log, or on lite journalctl -u 'ggl.io.linewatch.*'; then deploy again",
            )  # fmt: skip
    if not found and not (device.directory / "state").is_dir():
        yield Finding("containers", WARN, "none of Linewatch runs here", "deploy it: docs/deploying.md")


def inspected() -> list[dict[str, Any]]:
    """`docker inspect` of our containers, whatever they are called: the image's title tells."""
    said = look(
        "docker", "ps", "-a", "--format", '{{.Names}} {{.Label "org.opencontainers.image.title"}}'
    ).out
    names = [
        name
        for name, _, title in (line.partition(" ") for line in said.splitlines())
        if title.startswith(TITLE)
    ]
    if not names:
        return []
    said = look("docker", "inspect", *names).out
    content: list[dict[str, Any]] = json.loads(said) if said else []
    return content


def certificates(device: Device) -> Iterator[Finding]:
    """The forwarder's own certificate and key: there, readable for it, a pair, in date."""
    place = device.directory / "uplink"
    if not place.is_dir():
        yield Finding(
            "uplink certificate",
            WARN,
            f"there is no {place}",
            "put what `linewatch provision --device` made there",
        )
        return
    missing = [name for name in UPLINK if not (place / name).is_file()]
    if missing:
        yield Finding("uplink certificate", FAIL, f"{place}: {', '.join(missing)} missing", "copy the folder uplink/ that `linewatch provision --device` made")  # fmt: skip
        return
    key = (place / "key.pem").stat()
    if key.st_uid != OWNER or key.st_mode & 0o077:
        yield Finding(
            "uplink key", FAIL if key.st_uid != OWNER else WARN,
            f"owner {key.st_uid}, mode {key.st_mode & 0o777:o}", f"chown -R {OWNER}:{OWNER} {place}; chmod 600 {place}/key.pem",
        )  # fmt: skip
    try:
        context = ssl.create_default_context(cafile=str(place / "ca.pem"))
        context.load_cert_chain(place / "certificate.pem", place / "key.pem")
        # Python's own decoder of a certificate has no public name; `openssl` need not be installed on a device.
        decoded = ssl._ssl._test_decode_cert(str(place / "certificate.pem"))  # type: ignore[attr-defined]
        ends = ssl.cert_time_to_seconds(decoded["notAfter"])
    except (OSError, ssl.SSLError, ValueError) as error:
        yield Finding("uplink certificate", FAIL, f"can't be used: {error}", "provision the device again: linewatch provision --device")  # fmt: skip
        return
    told = "valid until " + time.strftime("%Y-%m-%d", time.gmtime(ends))
    if ends < time.time():
        yield Finding(
            "uplink certificate", FAIL, told, "linewatch provision --device ... --replace-certificate"
        )
    else:
        yield Finding("uplink certificate", WARN if ends < time.time() + SOON_S else OK, told)


def cloud(device: Device) -> Iterator[Finding]:
    """Whether IoT Core's endpoint answers TLS with our certificate. Being away is a warning: the forwarder waits for days."""
    endpoint = device.endpoint or _environment(
        "linewatch-forwarder", "FORWARDER_UPLINK_HOST", "FORWARDER_UPLINK_PORT"
    )
    if not endpoint:
        yield Finding("cloud", NOT_CHECKED, "no endpoint known; name it with --endpoint HOST:PORT")
        return
    host, port = _host_and_port(endpoint, 8883)
    place = device.directory / "uplink"
    try:
        context = ssl.create_default_context(cafile=str(place / "ca.pem"))
        context.load_cert_chain(place / "certificate.pem", place / "key.pem")
        if port == 443:
            context.set_alpn_protocols(["x-amzn-mqtt-ca"])
        with (
            socket.create_connection((host, port), REACH_S) as raw,
            context.wrap_socket(raw, server_hostname=host),
        ):
            pass
    except (OSError, ssl.SSLError) as error:
        yield Finding("cloud", WARN, f"{host}:{port}: {error}", "check network, firewall (8883 outbound), clock and certificate; events wait on disk meanwhile")  # fmt: skip
    else:
        yield Finding("cloud", OK, f"{host}:{port} answers with TLS")


def registry(device: Device) -> Iterator[Finding]:
    """Whether the images' registry can be reached. Only an update needs it."""
    host = device.registry or _registry_of_images()
    if not host:
        yield Finding("registry", NOT_CHECKED, "no registry known; name it with --registry HOST")
        return
    is_local = host.split(":")[0] in {"127.0.0.1", "localhost"}
    make = http.client.HTTPConnection if is_local else http.client.HTTPSConnection
    connection = make(host, timeout=REACH_S)
    try:
        connection.request("GET", "/v2/")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        yield Finding("registry", WARN, f"{host}: {error}", "what runs goes on; an update needs it, or a bundle (docs/air-gapped.md)")  # fmt: skip
        return
    finally:
        connection.close()
    if answer.status in {200, 401}:
        yield Finding("registry", OK, f"{host} answers")
    else:
        yield Finding("registry", WARN, f"{host}: HTTP {answer.status}", "is that a container registry?")


def cameras(device: Device) -> Iterator[Finding]:
    """Video devices, and the folder that a camera writes to."""
    video = sorted(path.name for path in (device.root / "dev").glob("video*"))
    if video:
        yield Finding("cameras", OK, ", ".join(video))
    source = device.directory / "source"
    if not source.is_dir():
        yield Finding(
            "source folder", OK if video else NOT_CHECKED, f"there is no {source}; capture makes it"
        )
        return
    status = source.stat()
    readable = status.st_uid == OWNER or status.st_mode & 0o005 == 0o005
    if readable:
        yield Finding("source folder", OK, f"{source}")
    else:
        yield Finding(
            "source folder", FAIL, f"{source} can't be read by user {OWNER}", f"chmod o+rx {source}"
        )


def provider(device: Device) -> Iterator[Finding]:
    """What models run on, and on a Jetson whether containers can have its GPU."""
    is_jetson = (device.root / "etc/nv_tegra_release").exists()
    runtimes = look("docker", "info", "--format", "{{json .Runtimes}}").out
    if is_jetson and '"nvidia"' not in runtimes:
        yield Finding("provider", FAIL, "a Jetson without the nvidia container runtime: models would run on the CPU", "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker; systemctl restart docker")  # fmt: skip
    elif is_jetson:
        yield Finding("provider", OK, "Jetson with the nvidia container runtime")
    asked = _environment("linewatch-inference", "INFERENCE_EXECUTION_PROVIDERS")
    yield Finding("provider", OK, f"asked for: {asked or 'CPUExecutionProvider'}, on {os.uname().machine}")


def models(device: Device) -> Iterator[Finding]:
    """What inference last said of each model. The container writes there: nothing but a plain file is read, and little."""
    told = sorted(
        path for path in (device.directory / "state/inference/serving").glob("*") if "." not in path.name
    )
    if not told:
        yield Finding("models", WARN, "inference has said nothing about a model yet", "deploy a model component: docs/shipping-a-model.md")  # fmt: skip
    for path in told:
        line = _plain_line(path)
        version, _, rest = line.partition(" ")
        if not line:
            yield Finding(f"model {path.name}", NOT_CHECKED, f"{path} is no plain file that can be read")
        elif rest.startswith("serving"):
            yield Finding(f"model {path.name}", OK, f"{version} is served")
        elif rest.startswith("set-aside"):
            yield Finding(f"model {path.name}", OK, line)
        else:
            yield Finding(
                f"model {path.name}",
                FAIL,
                line,
                "the version before it goes on serving; publish a package that holds",
            )


def _plain_line(path: Path) -> str:
    """The first line of a plain file, at most 1 KiB of it; empty for anything else, a link or a pipe above all."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(1024).decode("utf-8", "replace").partition("\n")[0].strip()


def _environment(title: str, *names: str) -> str:
    """Values of a service's variables, joined as host:port; empty when it is not there."""
    for one in inspected():
        if (one["Config"]["Labels"] or {}).get("org.opencontainers.image.title") == title:
            held = dict(entry.split("=", 1) for entry in one["Config"]["Env"] if "=" in entry)
            return ":".join(held[name] for name in names if held.get(name))
    return ""


def _registry_of_images() -> str:
    for one in inspected():
        first, slash, _ = str(one["Config"]["Image"]).partition("/")
        if slash and ("." in first or ":" in first):
            return first
    return ""


def _host_and_port(endpoint: str, default: int) -> tuple[str, int]:
    host, _, port = endpoint.partition(":")
    return host, int(port) if port.isdigit() else default
