# SPDX-License-Identifier: Apache-2.0
"""What `make images` is made of, without an engine: what an image weighs and holds, and what is left out of OpenCV."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from linewatch_images.layout import NotSaved, PlatformImage, Saved  # noqa: E402
from linewatch_images.sbom import bill_of_materials, wanted  # noqa: E402

METADATA = "opt/linewatch/{0}-1.0.dist-info/METADATA"
DPKG = b"Package: libc6\nStatus: install ok installed\nArchitecture: arm64\nVersion: 2.41-12\n\nPackage: gone\nStatus: deinstall ok config-files\nArchitecture: arm64\nVersion: 1\n"
APK = b"C:Q1\nP:musl\nV:1.2.5-r9\nA:aarch64\nS:4\n\nP:mosquitto\nV:2.0.21-r0\nA:aarch64\n"


def packed(files: dict[str, bytes]) -> bytes:
    """A layer."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return whole.getvalue()


class Engine:
    """A program named docker that answers `save` with a tar, as the engine does."""

    def __init__(self, folder: Path) -> None:
        self._blobs: dict[str, bytes] = {}
        self._tar = folder / "saved.tar"
        (folder / "docker").write_text(f'#!/bin/sh\n[ "$1" = save ] || exit 64\ncat {self._tar}\n')
        (folder / "docker").chmod(0o755)

    def image(self, layers: list[bytes], ours_from: int, architecture: str = "arm64") -> str:
        """The manifest's digest."""
        steps = [{"created_by": "base"}] * ours_from
        steps += [
            {"created_by": "ARG BASE", "empty_layer": True}, {"created_by": "LABEL x=y", "empty_layer": True},
            *[{"created_by": "COPY /image / # buildkit"}] * (len(layers) - ours_from),
        ]  # fmt: skip
        config = {"os": "linux", "architecture": architecture, "history": steps}
        return self._document(
            {
                "config": {"digest": self._document(config)},
                "layers": [{"digest": self._blob(layer), "size": len(layer)} for layer in layers],
            }
        )

    def index(self, *digests: str) -> str:
        """Of manifests; the last is an attestation."""
        told = [{"digest": digest, "platform": {"os": "linux"}} for digest in digests]
        told[-1]["platform"] = {"os": "unknown"}
        return self._document({"manifests": told})

    def saves(self, digest: str) -> None:
        """What `docker save` now writes."""
        entries = {f"blobs/sha256/{name[7:]}": data for name, data in self._blobs.items()}
        entries["index.json"] = json.dumps({"manifests": [{"digest": digest}]}).encode()
        self._tar.write_bytes(packed(entries))

    def _document(self, content: Any) -> str:
        return self._blob(json.dumps(content).encode())

    def _blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._blobs[digest] = data
        return digest


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Engine(tmp_path)


def test_only_what_comes_after_the_base_image_is_counted_as_added(engine: Engine) -> None:
    layers = [gzip.compress(packed({"a": os.urandom(5000)})) for _ in range(3)]
    engine.saves(engine.image(layers, ours_from=1))

    (image,) = Saved(wanted).images("x")

    assert image.platform == "linux/arm64"
    assert image.added_gzip_bytes == len(layers[1]) + len(layers[2])
    assert image.total_gzip_bytes == sum(map(len, layers))


def test_a_layer_that_the_engine_keeps_unpacked_weighs_what_it_would_weigh_packed(engine: Engine) -> None:
    layer = packed({"a": b"0123456789" * 50_000})
    engine.saves(engine.image([layer], ours_from=0))

    (image,) = Saved(wanted).images("x")

    assert len(gzip.compress(layer, 6)) == pytest.approx(image.added_gzip_bytes, abs=64)


def test_each_platform_of_an_index_is_seen_and_no_attestation(engine: Engine) -> None:
    layer = gzip.compress(packed({"a": b"1"}))
    amd64, arm64 = (engine.image([layer], 0, name) for name in ("amd64", "arm64"))
    engine.saves(engine.index(arm64, amd64, engine.image([layer], 0, "unknown")))

    found = Saved(wanted).images("x")

    assert [(image.platform, image.digest) for image in found] == [
        ("linux/amd64", amd64),
        ("linux/arm64", arm64),
    ]


def test_a_later_layer_covers_and_takes_away(engine: Engine) -> None:
    below = packed({METADATA.format("a"): b"old", METADATA.format("b"): b"gone", "etc/passwd": b"unwanted"})
    above = packed({METADATA.format("a"): b"new", "opt/linewatch/.wh.b-1.0.dist-info": b""})
    engine.saves(engine.image([gzip.compress(below), gzip.compress(above)], ours_from=1))
    saved = Saved(wanted)

    (image,) = saved.images("x")

    assert saved.files(image) == {PurePosixPath("/") / METADATA.format("a"): b"new"}


def test_what_the_engine_says_is_told_when_it_saves_nothing(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\necho no such image: x >&2\nexit 1\n")

    with pytest.raises(NotSaved, match="x: no such image"):
        Saved(wanted).images("x")


def bom(files: dict[str, bytes]) -> dict[str, Any]:
    text = bill_of_materials(
        {PurePosixPath("/") / name: data for name, data in files.items()},
        name="linewatch/x", version="1.0.0", digest=f"sha256:{'0' * 64}", created=datetime(2026, 11, 21, tzinfo=UTC),
    )  # fmt: skip
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    content: dict[str, Any] = json.loads(text)
    return content


def test_a_bill_names_python_libraries_and_debian_packages_that_are_installed() -> None:
    metadata = b"Metadata-Version: 2.4\nName: Paho_MQTT\nVersion: 2.2.0\nLicense-Expression: MIT\n\nLicense-Expression: no\n"

    found = bom(
        {
            METADATA.format("a"): metadata,
            "var/lib/dpkg/status": DPKG,
            "usr/lib/os-release": b'ID=debian\nVERSION_ID="13"\n',
        }
    )

    components = {component["purl"]: component for component in found["components"]}
    assert components.keys() == {
        "pkg:pypi/paho-mqtt@2.2.0",
        "pkg:deb/debian/libc6@2.41-12?arch=arm64&distro=debian-13",
    }
    assert components["pkg:pypi/paho-mqtt@2.2.0"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert found["metadata"]["timestamp"] == "2026-11-21T00:00:00+00:00"


@pytest.mark.parametrize("where", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_a_bill_names_the_packages_of_an_alpine_base_image(where: str) -> None:
    found = bom({where: APK, "etc/os-release": b"ID=alpine\nVERSION_ID=3.22.1\n"})

    assert {component["purl"] for component in found["components"]} == {
        "pkg:apk/alpine/musl@1.2.5-r9?arch=aarch64&distro=alpine-3.22.1",
        "pkg:apk/alpine/mosquitto@2.0.21-r0?arch=aarch64&distro=alpine-3.22.1",
    }


def test_an_image_adds_up_its_layers() -> None:
    assert PlatformImage("linux/amd64", "", {}, ()).total_gzip_bytes == 0


ABSENT = ROOT / "tools" / "containers" / "absent.py"
LEFT_OUT = ("libopenblasp", "libavcodec", "libavformat", "libavutil", "libswscale")
USES_PICTURES = """
import cv2, numpy as np
picture = np.arange(300 * 400 * 3, dtype=np.uint8).reshape(300, 400, 3)
for suffix in (".png", ".jpg"):
    back = cv2.imdecode(cv2.imencode(suffix, picture)[1], cv2.IMREAD_COLOR)
assert cv2.imdecode(cv2.imencode(".png", picture)[1], cv2.IMREAD_COLOR).tobytes() == picture.tobytes()
print(cv2.resize(picture, (101, 77), interpolation=cv2.INTER_AREA).sum())
print(cv2.connectedComponentsWithStats(np.asarray(picture[..., 0] > 250, np.uint8))[0], cv2.Laplacian(picture, cv2.CV_16S).sum())
"""


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this machine's OpenCV without what is left out."""
    folder = tmp_path_factory.mktemp("site")
    site = Path(str(distribution("opencv-python-headless").locate_file("")))
    for name in ("cv2", "opencv_python_headless.libs"):
        shutil.copytree(site / name, folder / name)
    subprocess.run([sys.executable, ABSENT, folder / "cv2" / "cv2.abi3.so", *LEFT_OUT], check=True)
    return folder


def run(code: str, site: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site or "")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_opencv_does_with_pictures_what_it_did_before(slim: Path) -> None:
    whole, less = run(USES_PICTURES, None), run(USES_PICTURES, slim)

    assert less.returncode == 0, less.stderr
    assert less.stdout == whole.stdout
    assert run("import cv2; print(cv2.__file__)", slim).stdout.startswith(str(slim))


def test_the_service_s_own_tests_of_pictures_pass_with_it(slim: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "services/inference/tests/test_pictures_and_verdicts.py"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(slim)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d+ passed", done.stdout)


def test_a_function_that_was_left_out_ends_the_process_and_does_not_return_nonsense(slim: Path) -> None:
    solve = "import cv2, numpy as np; cv2.solve(np.eye(200), np.ones((200, 1)))"

    assert run(solve, None).returncode == 0
    assert run(solve, slim).returncode == -4  # SIGILL


def test_what_only_the_absent_libraries_needed_is_gone_too(slim: Path) -> None:
    left = {
        re.split(r"-[0-9a-f]{8}\.", path.name)[0] for path in (slim / "opencv_python_headless.libs").iterdir()
    }

    assert not left & {"libcrypto", "libssl", "libvpx", "libgfortran", "libswresample"}
    assert {"libpng16", *LEFT_OUT[1:]} <= left
    for path in (slim / "opencv_python_headless.libs").glob("libav[cfu]*"):
        assert path.stat().st_size < 200_000


def test_a_library_that_is_not_linked_is_named(slim: Path) -> None:
    done = subprocess.run(
        [sys.executable, ABSENT, slim / "cv2" / "cv2.abi3.so", "libnothere"], capture_output=True, text=True, check=False
    )  # fmt: skip

    assert done.returncode != 0
    assert "is not linked with libnothere" in done.stderr
    assert "Traceback" not in done.stderr
