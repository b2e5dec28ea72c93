# SPDX-License-Identifier: Apache-2.0
"""The platform engineer's day, whole, without an AWS account: `make rehearsal`, after `make images`.

Every line that begins with $ is the real command in a process of its own, against stand-ins over HTTP: ministack, an ECR
in front of it, and the Greengrass control plane with one simulated core device. Only the device's own reports and the
findings of ECR's scan are put in by hand here, and each such line begins with #. The release is made in a folder of its
own, a copy of this checkout's parts under a commit of its own. Ends with 1 where a command ends with another exit code
than it should.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests
import yaml

from linewatch_plant.ministack_process import REGION, end, launched
from linewatch_plant.processes import PlantError
from linewatch_plant.provisioning import numbers_as_numbers
from linewatch_plant.rehearsed_alarms import first_order, send_alarms
from linewatch_plant.simulated_core import SimulatedCore
from linewatch_plant.standin_ecr import StandinEcr, scanned
from linewatch_plant.standin_greengrass import StandinGreengrass

ROOT = Path(__file__).resolve().parents[2]
DEV, PROD = "111111111111", "222222222222"
DEVICE = "linewatch-line-7"
COMMAND_S = 1800.0

DONE, REFUSED, UNHEALTHY = 0, 3, 4
"""Exit codes of linewatch_fleet/errors.py, which the plant does not import."""


class WentWrong(Exception):
    """A command did not end as it should."""


@dataclass(slots=True)
class Day:
    """The stand-ins, and a folder of the engineer's own: a checkout's parts, fleet.yaml, keys."""

    place: Path
    ecr: StandinEcr
    greengrass: StandinGreengrass
    environment: dict[str, str] = field(default_factory=dict)

    def linewatch(self, arguments: str, expect: int = DONE) -> None:
        """Runs the command, shown as it would be typed."""
        print(f"\n$ linewatch {arguments}", flush=True)
        ran = subprocess.run(
            [sys.executable, "-m", "linewatch_fleet.cli", *arguments.split()],
            cwd=self.place, env=self.environment, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        if ran.returncode != expect:
            raise WentWrong(f"`linewatch {arguments}` ended with {ran.returncode}, not {expect}")

    def client(self, service: str) -> Any:
        """Of the dev account."""
        return boto3.client(
            service, endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name=REGION, aws_access_key_id=DEV,
            aws_secret_access_key="x",
        )  # fmt: skip

    def output(self, name: str) -> str:
        """Of the dev account's stack."""
        stacks = self.client("cloudformation").describe_stacks(StackName="linewatch-dev")["Stacks"]
        return str(next(one["OutputValue"] for one in stacks[0]["Outputs"] if one["OutputKey"] == name))

    def said(self, what: str) -> None:
        """Says what the stand-ins are told by hand."""
        print(f"\n# {what}", flush=True)


def play(day: Day, built: dict[str, Any]) -> None:
    """The day, in order."""
    day.linewatch("release keys keys/release")
    day.linewatch("release --key keys/release.key")

    day.linewatch("provision dev --dry-run")
    day.linewatch("provision dev")
    day.linewatch("promote dev --dry-run")
    day.linewatch("promote dev")
    day.linewatch("promote dev")

    day.linewatch("promote prod", expect=REFUSED)
    day.said("ECR's scan of the dev images comes in, without findings")
    for (repository, digest), _ in list(day.ecr.accounts[DEV].manifests.items()):
        day.ecr.accounts[DEV].scans[repository, digest] = scanned()
    day.linewatch("promote prod")

    day.linewatch(f"provision dev --device {DEVICE} --ca-file ../ca.pem")
    day.linewatch("publish dev")
    day.linewatch("publish dev")
    day.linewatch("deploy dev --dry-run")
    day.linewatch("deploy dev")
    day.said(f"{DEVICE} connects for the first time and carries the deployment out")
    core = day.greengrass.add_core(DEVICE, "linewatch-dev")
    target = day.greengrass.group_arn("linewatch-dev")
    core.succeeds(target)
    day.linewatch("status dev")
    day.linewatch("assets import dev cloud/assets.csv --dry-run")
    day.linewatch("assets import dev cloud/assets.csv")
    day.linewatch("assets check dev cloud/assets.csv")
    day.linewatch("assets unknown dev")
    day.linewatch("assets export dev build/assets.csv")
    day.linewatch("dead-letters list dev")
    day.linewatch("dead-letters replay dev --all --dry-run")
    work_order(day)
    day.linewatch("accuracy dev")
    day.linewatch("pilot-exit dev --risk 0.1")

    next_release(day, built)
    day.linewatch("promote dev")
    day.linewatch("publish dev")
    day.linewatch("deploy dev")
    breaks(day, core, target)
    day.linewatch("status dev", expect=UNHEALTHY)
    day.linewatch("rollback dev --dry-run")
    day.linewatch("rollback dev")
    day.said(f"{DEVICE} carries it out")
    core.succeeds(target)
    day.linewatch("status dev")

    own_model(day, core, target)
    day.linewatch(
        "bundle make --platform linux/amd64 --from dev --key keys/release.key --out linewatch-device.tar"
    )
    day.linewatch("bundle verify linewatch-device.tar")
    day.linewatch(f"teardown dev --device {DEVICE} --yes")
    day.linewatch("teardown dev --yes --delete-data")


def work_order(day: Day) -> None:
    """A machine gets worse; the order that waits for a person is explained, and a policy is tried and put."""
    day.said("turbofan 1 tells of its last cycles: five windows of a high severity")
    # The stand-in's own cure; AWS needs none.
    numbers_as_numbers(day.client, 2)
    send_alarms(day.client("sqs"), day.output("InspectionsQueueUrl"))
    reference = first_order(day.client("dynamodb"), day.output("WorkOrdersTable"))
    day.linewatch("orders list dev")
    day.linewatch(f"orders explain dev {reference}")
    day.linewatch(f"why dev {reference}")
    day.linewatch("verify dev --all")
    # The ERP of fleet.yaml is nobody's: the command has to say so.
    day.linewatch("erp check dev", expect=UNHEALTHY)
    day.linewatch("policy show dev")
    bundled = day.place / "cloud/work_orders/policy.json"
    stricter = json.loads(bundled.read_text()) | {
        "version": "2.1.0",
        "rate_limit": {"orders": 2, "hours": 24},
    }
    (day.place / "build/policy.json").write_text(json.dumps(stricter))
    day.linewatch("policy check build/policy.json")
    day.linewatch("policy what-if dev build/policy.json")
    day.linewatch("policy put dev build/policy.json")


def next_release(day: Day, built: dict[str, Any]) -> None:
    """A release in which one image is another one: forwarder's of one platform alone, which has a digest of its own."""
    major, minor, patch = built["version"].split(".")
    forwarder = dict(built["images"]["forwarder"])
    platform, alone = next(iter(sorted(forwarder["platforms"].items())))
    if alone["digest"] == forwarder["digest"]:
        raise WentWrong(
            "build/images.json: images of one platform only; run: make images PLATFORMS=linux/amd64,linux/arm64"
        )
    forwarder |= {"digest": alone["digest"], "platforms": {platform: alone}}
    changed = built | {
        "version": f"{major}.{minor}.{int(patch) + 1}",
        "images": built["images"] | {"forwarder": forwarder},
    }
    day.said(
        f"the next release, {changed['version']}: the forwarder is another image, everything else is the same"
    )
    commit(day.place, changed)
    day.linewatch("release --key keys/release.key")


def own_model(day: Day, core: SimulatedCore, target: str) -> None:
    """A model of one's own, packaged from the committed one's graph, goes out alone; then a deployment is cancelled."""
    made = day.place / "models/pv-el-cells/releases/1.0.0"
    description = json.loads((ROOT / "models/pv-el-cells/description.json").read_text())
    (day.place / "build/own").mkdir()
    (day.place / "build/own/description.json").write_text(
        json.dumps(description | {"model_name": "own-cells"})
    )
    shutil.copytree(made / "golden", day.place / "build/own/golden", ignore=shutil.ignore_patterns("*.json"))
    day.said("a model of one's own: the committed graph under another name; its key is named in fleet.yaml")
    day.linewatch(
        f"package --onnx {made}/model.onnx --description build/own/description.json --out build/own-cells/1.0.0"
    )
    key = next((day.place / "build/trusted-keys").glob("*.pem")).read_text()
    body = "".join(line for line in key.splitlines() if not line.startswith("-----"))
    fleet_file = day.place / "fleet.yaml"
    told = yaml.safe_load(fleet_file.read_text())
    told["environments"][0]["configuration"] = {"io.linewatch.Inference": {"TrustedKeys": body}}
    fleet_file.write_text(yaml.safe_dump(told, sort_keys=False))
    day.linewatch("publish dev --model build/own-cells/1.0.0")
    day.linewatch("deploy dev --with io.linewatch.model.own-cells=1.0.0")
    day.said(f"{DEVICE} carries it out")
    core.succeeds(target)
    day.linewatch("status dev")
    day.linewatch("deploy dev --without io.linewatch.model.own-cells")
    day.linewatch("cancel dev")


def breaks(day: Day, core: SimulatedCore, target: str) -> None:
    """The device can't start the new forwarder, and its nucleus goes back to the one before by itself."""
    day.said(
        f"{DEVICE} can't start the new forwarder: three errors, BROKEN, its nucleus goes back to what ran before"
    )
    core.fails(
        target, "FAILED_ROLLBACK_COMPLETE", ["DEPLOYMENT_FAILURE", "COMPONENT_BROKEN"], ["COMPONENT_ERROR"]
    )


@contextmanager
def prepared(place: Path, built: dict[str, Any]) -> Iterator[Day]:
    """Stand-ins that run, and the engineer's folder."""
    (place / "account").mkdir()
    process, port, _ = launched(place / "account", enforce_policies=False)
    endpoint = f"http://127.0.0.1:{port}"
    ecr = StandinEcr(endpoint, REGION, (DEV, PROD))

    def artifact(uri: str) -> bytes | None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        s3 = boto3.client(
            "s3", endpoint_url=endpoint, region_name=REGION, aws_access_key_id=DEV, aws_secret_access_key="x"
        )
        try:
            content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return content

    greengrass = StandinGreengrass(account=DEV, artifact=artifact)
    try:
        checkout = place / "checkout"
        check_out(checkout)
        commit(checkout, built)
        (place / "ca.pem").write_bytes(requests.get(f"{endpoint}/_ministack/iot/ca.pem", timeout=60).content)
        (checkout / "fleet.yaml").write_text(yaml.safe_dump(fleet(built), sort_keys=False))
        (place / "credentials").write_text("".join(
            f"[{name}]\naws_access_key_id={account}\naws_secret_access_key=x\n" for name, account in (("dev", DEV), ("prod", PROD))
        ))  # fmt: skip
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(place),
            "COLUMNS": "180",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ENDPOINT_URL_ECR": ecr.url,
            "AWS_ENDPOINT_URL_GREENGRASSV2": greengrass.endpoint_url,
            "AWS_SHARED_CREDENTIALS_FILE": str(place / "credentials"),
            "AWS_CONFIG_FILE": os.devnull,
        } | {
            name: value
            for name, value in os.environ.items()
            if name.startswith("PIP_") or name == "SSL_CERT_FILE"
        }
        yield Day(checkout, ecr, greengrass, environment)
    finally:
        greengrass.stop()
        ecr.stop()
        end(process)


def check_out(place: Path) -> None:
    """What a release is made of, as a checkout of its own, so that work in progress here is not in the way."""
    releases = [path.relative_to(ROOT) for path in ROOT.glob("models/*/releases")]
    for folder in (Path("cloud"), Path("recipes"), Path("models/trusted-keys"), *releases):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(
        ROOT / ".gitignore", place / ".gitignore"
    )  # what the day makes must not make the tree dirty
    git(place, "init", "--quiet")


def commit(place: Path, built: dict[str, Any]) -> None:
    """Commits the folder, and lets build/images.json say that the images were built from that."""
    (place / "VERSION").write_text(built["version"] + "\n")
    git(place, "add", ".")
    git(
        place,
        "-c",
        "user.name=rehearsal",
        "-c",
        "user.email=rehearsal@example.com",
        "commit",
        "--quiet",
        "-m",
        built["version"],
    )
    (place / "build").mkdir(exist_ok=True)
    told = built | {"commit": git(place, "rev-parse", "HEAD"), "dirty": False}
    (place / "build/images.json").write_text(json.dumps(told))


def git(place: Path, *arguments: str) -> str:
    """Runs git in the folder and gives back what it says. Of the person's own settings none counts, nor a hook's GIT_DIR."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    ran = subprocess.run(
        ["git", "-C", str(place), *arguments], capture_output=True, text=True, timeout=300, check=False,
        env=own | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
    )  # fmt: skip
    if ran.returncode:
        raise WentWrong(f"git {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout.strip()


def fleet(built: dict[str, Any]) -> dict[str, Any]:
    """fleet.yaml: two accounts, and a gate before the second."""
    platforms = sorted(set.intersection(*(set(image["platforms"]) for image in built["images"].values())))
    here = {"region": REGION, "parameters": {"ErpBaseUrl": "https://erp.example.com", "IsStandIn": "true"}}
    gate = {"signature": True, "test_report": False, "platforms": platforms[:1]}
    return {
        "trusted_keys": ["keys/release.pem"],
        "environments": [
            {"name": "dev", "account": DEV, "profile": "dev", **here, "gate": gate | {"scan": "if-present"}},
            {"name": "prod", "account": PROD, "profile": "prod", "promotes_from": "dev", **here, "gate": gate | {"scan": "required"}},
        ],
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every command ended as it should."""
    parser = argparse.ArgumentParser(
        prog="python -m linewatch_plant.rehearsal", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("build/images.json"),
        help="what `make images` built (default %(default)s)",
    )
    asked = parser.parse_args(arguments)
    try:
        built = json.loads(asked.images.read_text())
    except OSError:
        print(
            f"there is no {asked.images}; run `make images PLATFORMS=linux/amd64,linux/arm64` first",
            file=sys.stderr,
        )
        return 1
    if not built["registry"]:
        print(
            f"{asked.images}: the images lie in the engine only; push them: make images REGISTRY=HOST:PORT",
            file=sys.stderr,
        )
        return 1
    place = Path(tempfile.mkdtemp(prefix="linewatch-rehearsal-"))
    try:
        with prepared(place, built) as day:
            play(day, built)
    except (WentWrong, PlantError) as error:
        print(f"\nrehearsal: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print("\nrehearsal: every command ended as it should")
    return 0


if __name__ == "__main__":
    sys.exit(main())
