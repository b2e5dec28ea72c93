# SPDX-License-Identifier: Apache-2.0
"""`linewatch promote` as a process, between real registries: the bytes, the gate, being killed, being two."""

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from shops import VERSION, Shop

from linewatch_plant.oci_images import INDEX, MANIFEST

ACCEPT = {"Accept": f"{INDEX}, {MANIFEST}"}
DEADLINE_S = 120.0


def stage(name: str, registry: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "account": "111111111111", "region": "eu-central-1", "registry": registry,
            "gate": {"scan": "if-present"}, **more}  # fmt: skip


def bytes_of(host: str, repository: str, reference: str) -> bytes | None:
    found = requests.get(f"http://{host}/v2/{repository}/manifests/{reference}", headers=ACCEPT, timeout=60)
    return found.content if found.ok else None


def everything(host: str, repository: str, reference: str) -> dict[str, bytes]:
    """Every manifest and blob that a reference leads to, by digest, read by plain requests."""
    content = bytes_of(host, repository, reference)
    assert content is not None, f"{host}/{repository} has no {reference}"
    document, found = json.loads(content), {reference: content}
    for child in document.get("manifests", []):
        found |= everything(host, repository, child["digest"])
    for blob in [*([document["config"]] if "config" in document else []), *document.get("layers", [])]:
        answer = requests.get(f"http://{host}/v2/{repository}/blobs/{blob['digest']}", timeout=60)
        assert answer.ok
        found[blob["digest"]] = answer.content
    return found


def test_the_whole_index_arrives_byte_by_byte_with_attestations_signature_and_referrer(
    shop: Shop, registry: Callable[..., str]
) -> None:
    source, target = registry(), registry()
    writer = shop.add_image("capture", source)
    digest = shop.images["capture"].digest
    content = bytes_of(source, "linewatch/capture", digest)
    assert content
    signature = writer.cosign_signature(digest)
    referrer = writer.referrer({"mediaType": INDEX, "digest": digest, "size": len(content)})
    shop.release()
    shop.fleet(stage("dev", target, repository_prefix="dev/"))

    done = shop.run("promote", "dev", "--source", source)

    assert done.returncode == 0, done.stderr
    for reference in (digest, signature, referrer, digest.replace(":", "-")):
        assert everything(target, "dev/linewatch/capture", reference) == everything(
            source, "linewatch/capture", reference
        )
    assert len(json.loads(content)["manifests"]) == 4, "two platforms and an attestation of each"
    assert bytes_of(target, "dev/linewatch/capture", VERSION) == content


def test_a_second_run_has_nothing_to_do(shop: Shop, registry: Callable[..., str]) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source)
    shop.release()
    shop.fleet(stage("dev", target))
    assert shop.run("promote", "dev", "--source", source).returncode == 0

    again = shop.run("promote", "dev", "--source", source, "--json")

    assert again.returncode == 0
    assert [step["action"] for step in json.loads(again.stdout)["plan"]] == ["keep"]


def test_one_image_of_one_platform_without_an_index(shop: Shop, registry: Callable[..., str]) -> None:
    source, target = registry(), registry()
    writer = shop.add_image("capture", source)
    single = writer.platform("single", "amd64")
    shop.images["capture"] = shop.images["capture"].model_copy(
        update={"digest": single["digest"], "platforms": ["linux/amd64"]}
    )
    shop.release()
    shop.fleet(stage("dev", target, gate={"scan": "off", "platforms": ["linux/amd64"]}))

    done = shop.run("promote", "dev", "--source", source, "--verify-layers")

    assert done.returncode == 0, done.stderr
    assert everything(target, "linewatch/capture", single["digest"])


def test_from_stage_to_stage_in_one_registry_nothing_is_sent(
    shop: Shop, registry: Callable[..., str]
) -> None:
    built, own = registry(), registry()
    shop.add_image("capture", built)
    shop.release()
    shop.fleet(
        stage("dev", own, repository_prefix="dev/"),
        stage("prod", own, repository_prefix="prod/", promotes_from="dev"),
    )
    assert shop.run("promote", "dev", "--source", built).returncode == 0

    done = shop.run("promote", "prod")

    assert done.returncode == 0, done.stderr
    digest = shop.images["capture"].digest
    assert everything(own, "prod/linewatch/capture", digest) == everything(built, "linewatch/capture", digest)


def test_a_stage_before_its_source_says_what_to_do(shop: Shop, registry: Callable[..., str]) -> None:
    own = registry()
    shop.add_image("capture", registry())
    shop.release()
    shop.fleet(stage("dev", own, repository_prefix="dev/"), stage("prod", own, promotes_from="dev"))

    refused = shop.run("promote", "prod")

    assert refused.returncode == 1
    assert "promote to that environment first" in refused.stderr


def test_a_version_that_is_there_with_other_bytes_is_refused_and_stays(
    shop: Shop, registry: Callable[..., str]
) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source)
    shop.add_image("forwarder", source)
    shop.release()
    shop.fleet(stage("dev", target))
    assert shop.run("promote", "dev", "--source", source).returncode == 0
    before = bytes_of(target, "linewatch/capture", VERSION)
    shop.add_image("capture", source, layers=3)
    shop.release()

    refused = shop.run("promote", "dev", "--source", source)

    assert refused.returncode == 3
    assert "raise VERSION" in refused.stdout
    assert bytes_of(target, "linewatch/capture", VERSION) == before
    assert bytes_of(target, "linewatch/capture", shop.images["capture"].digest) is None


def test_dry_run_shows_sizes_and_copies_nothing(shop: Shop, registry: Callable[..., str]) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source, layer_bytes=100_000)
    shop.release()
    shop.fleet(stage("dev", target))

    shown = shop.run("promote", "dev", "--source", source, "--dry-run")

    assert shown.returncode == 0
    assert "in 8 of 8 blobs, 5 of 5 manifests" in shown.stdout
    assert requests.get(f"http://{target}/v2/_catalog", timeout=60).json() == {"repositories": []}


def test_killed_in_the_middle_it_goes_on_when_run_again(shop: Shop, registry: Callable[..., str]) -> None:
    source, target = registry(), registry()
    shop.add_image("inference", source, layers=12, layer_bytes=6_000_000)
    shop.release()
    shop.fleet(stage("dev", target))
    digest = shop.images["inference"].digest
    wanted = everything(source, "linewatch/inference", digest)

    with standing_still(source, after_bytes=40_000_000) as slow:
        process = shop.start("promote", "dev", "--source", slow)
        deadline = time.monotonic() + DEADLINE_S
        while not (arrived := [one for one in wanted if has_blob(target, one)]):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()

    assert bytes_of(target, "linewatch/inference", VERSION) is None, "the tag is the last that is written"
    left = json.loads(shop.run("promote", "dev", "--source", source, "--dry-run", "--json").stdout)
    image = left["images"]["inference"]
    assert 0 < image["bytes_to_send"] <= image["bytes"] - len(wanted[arrived[0]])
    assert shop.run("promote", "dev", "--source", source, "--verify-layers").returncode == 0
    assert everything(target, "linewatch/inference", digest) == wanted


@contextlib.contextmanager
def standing_still(upstream: str, after_bytes: int) -> Iterator[str]:
    """A way to a registry on which nothing comes back any more after so many bytes: whoever reads there never ends."""
    left, ended = [after_bytes], threading.Event()
    sockets: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                if is_answer:
                    left[0] -= len(content)
                    if left[0] < 0:
                        ended.wait()
                        return
                sink.sendall(content)
            sink.shutdown(socket.SHUT_WR)

    def take() -> None:
        host, _, port = upstream.partition(":")
        with contextlib.suppress(OSError):
            while True:
                near = server.accept()[0]
                far = socket.create_connection((host, int(port)))
                sockets.extend((near, far))
                for pair in ((near, far, False), (far, near, True)):
                    threads.append(threading.Thread(target=pump, args=pair))
                    threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threads = [threading.Thread(target=take)]
        threads[0].start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            for one in (server, *sockets):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(DEADLINE_S)
            for one in sockets:
                one.close()


def has_blob(host: str, digest: str) -> bool:
    return requests.head(f"http://{host}/v2/linewatch/inference/blobs/{digest}", timeout=60).ok


def test_two_at_once_do_no_harm(shop: Shop, registry: Callable[..., str]) -> None:
    source, target = registry(), registry()
    for name in ("capture", "forwarder"):
        shop.add_image(name, source, layers=4, layer_bytes=1_000_000)
    shop.release()
    shop.fleet(stage("dev", target))

    both = [shop.start("promote", "dev", "--source", source) for _ in range(2)]
    ended = [(process.communicate(timeout=DEADLINE_S), process.returncode) for process in both]

    assert [code for _, code in ended] == [0, 0], "".join(err for (_, err), _ in ended)
    for name, image in shop.images.items():
        assert everything(target, f"linewatch/{name}", image.digest) == everything(
            source, f"linewatch/{name}", image.digest
        )


def test_a_layer_that_the_source_has_damaged_is_not_taken(
    shop: Shop, registry: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source)
    shop.release()
    shop.fleet(stage("dev", target))
    configs = tmp_path_factory.getbasetemp().glob("registry*/registry.yml")
    place = next(path.parent for path in configs if f'"{source}"' in path.read_text())
    layer = max(place.glob("content/**/blobs/sha256/*/*/data"), key=lambda path: path.stat().st_size)
    damaged = bytearray(layer.read_bytes())
    damaged[100] ^= 1
    layer.write_bytes(damaged)

    failed = shop.run("promote", "dev", "--source", source)

    assert failed.returncode == 1
    assert "other bytes were read than the digest says" in failed.stderr
    assert bytes_of(target, "linewatch/capture", VERSION) is None
    assert not requests.head(
        f"http://{target}/v2/linewatch/capture/blobs/sha256:{layer.parent.name}", timeout=60
    ).ok


@pytest.mark.parametrize(
    ("change", "condition", "said"),
    [
        ({"is_signed": False}, "signature", "there is no release.yaml.sig"),
        ({"dirty": True}, "commit", "a tree that differed from the commit"),
        ({"test_report": None}, "tests", "no test report"),
        (
            {"test_report": {"digest": "sha256:" + "1" * 64, "passed": 9, "failed": 1, "skipped": 0}},
            "tests",
            "1 failed",
        ),
        (
            {"test_report": {"digest": "sha256:" + "1" * 64, "passed": 0, "failed": 0, "skipped": 3}},
            "tests",
            "0 passed",
        ),
    ],
)
def test_the_gate_refuses_names_the_condition_and_copies_nothing(
    shop: Shop, registry: Callable[..., str], change: dict[str, Any], condition: str, said: str
) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source)
    shop.release(**change)
    shop.fleet(stage("dev", target))

    refused = shop.run("promote", "dev", "--source", source, "--json")

    assert refused.returncode == 3
    unmet = [one for one in json.loads(refused.stdout)["gate"] if not one["met"]]
    assert [one["condition"] for one in unmet] == [condition]
    assert said in unmet[0]["detail"]
    assert requests.get(f"http://{target}/v2/_catalog", timeout=60).json() == {"repositories": []}


def test_a_manifest_that_was_changed_after_it_was_signed_is_refused(
    shop: Shop, registry: Callable[..., str]
) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source)
    shop.release()
    shop.fleet(stage("dev", target))
    release = shop.place / "release.yaml"
    release.write_text(release.read_text().replace("passed: 10", "passed: 11"))

    refused = shop.run("promote", "dev", "--source", source)

    assert refused.returncode == 3
    assert "is not a signature of" in refused.stdout


def test_the_platforms_of_the_registrys_own_index_count(shop: Shop, registry: Callable[..., str]) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source, architectures=("amd64",))  # the manifest says both
    shop.release()
    shop.fleet(stage("dev", target))

    refused = shop.run("promote", "dev", "--source", source)

    assert refused.returncode == 3
    assert "lacks linux/arm64" in refused.stdout


def test_a_scan_that_is_required_and_not_there_refuses(shop: Shop, registry: Callable[..., str]) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source)
    shop.release()
    shop.fleet(stage("dev", target, gate={"scan": "required"}))

    refused = shop.run("promote", "dev", "--source", source)

    assert refused.returncode == 3
    assert refused.stdout.count("--scan-report") == 2, "once for each platform"


@pytest.mark.parametrize(
    ("limit", "code"),
    [({"CRITICAL": 0}, 3), ({"CRITICAL": 1, "HIGH": 0}, 3), ({"CRITICAL": 1, "HIGH": 1}, 0)],
)
def test_findings_of_reports_are_held_against_the_limits(
    shop: Shop, registry: Callable[..., str], limit: dict[str, int], code: int
) -> None:
    source, target = registry(), registry()
    shop.add_image("capture", source)
    shop.release()
    shop.fleet(stage("dev", target, gate={"scan": "required", "max_findings": limit}))
    index = json.loads(bytes_of(source, "linewatch/capture", shop.images["capture"].digest) or b"")
    reports = []
    for number, child in enumerate(index["manifests"][:2]):
        findings = [{"VulnerabilityID": "CVE-2026-0001", "Severity": "CRITICAL", "PkgName": "zlib1g"},
                    {"VulnerabilityID": "CVE-2026-0002", "Severity": "HIGH", "PkgName": "tar"}]  # fmt: skip
        reports.append(shop.place / f"{number}.json")
        reports[-1].write_text(json.dumps({
            "SchemaVersion": 2, "ArtifactName": f"{source}/linewatch/capture@{child['digest']}",
            "Results": [{"Vulnerabilities": findings}],
        }))  # fmt: skip

    done = shop.run("promote", "dev", "--source", source, *(f"--scan-report={path}" for path in reports))

    assert done.returncode == code, done.stdout + done.stderr


def test_a_registry_with_a_password_takes_it_from_dockers_configuration(
    shop: Shop, registry: Callable[..., str]
) -> None:
    source = registry()
    htpasswd = shop.place / "htpasswd"
    # bcrypt of "secret"; the registry takes nothing else.
    htpasswd.write_text("ci:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
    target = registry(htpasswd)
    shop.add_image("capture", source)
    shop.release()
    shop.fleet(stage("dev", target))

    refused = shop.run("promote", "dev", "--source", source)
    assert refused.returncode == 1
    assert f"docker login {target}" in refused.stderr
    (shop.place / "docker").mkdir()
    auth = base64.b64encode(b"ci:secret").decode()
    (shop.place / "docker" / "config.json").write_text(json.dumps({"auths": {target: {"auth": auth}}}))

    assert shop.run("promote", "dev", "--source", source).returncode == 0


def test_an_environment_that_is_not_there_is_a_usage_error(shop: Shop) -> None:
    shop.images["capture"] = {
        "repository": "linewatch/capture",
        "digest": "sha256:" + "3" * 64,
        "platforms": ["linux/amd64"],
    }  # type: ignore[assignment]
    shop.release()
    shop.fleet(stage("dev", "127.0.0.1:1"))

    assert shop.run("promote", "prod").returncode == 2


def test_a_registry_that_does_not_answer_is_named(shop: Shop) -> None:
    shop.images["capture"] = {
        "repository": "linewatch/capture",
        "digest": "sha256:" + "3" * 64,
        "platforms": ["linux/amd64"],
    }  # type: ignore[assignment]
    shop.release()
    shop.fleet(stage("dev", "127.0.0.1:1"))

    failed = shop.run("promote", "dev", "--source", "127.0.0.1:1")

    assert failed.returncode == 1
    assert "127.0.0.1:1" in failed.stderr
