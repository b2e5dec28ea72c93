# SPDX-License-Identifier: Apache-2.0
"""An AWS account for tests of publish, deploy, status, rollback and cancel: ministack, and our greengrassv2 beside it."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import yaml
from click.testing import CliRunner, Result

from linewatch_fleet.cli import linewatch
from linewatch_fleet.manifest import Image, ModelPackage, Release, Template, write_release
from linewatch_fleet.oci import digest_of
from linewatch_fleet.recipes import MODELS, TEMPLATES, archive
from linewatch_plant.ministack_process import REGION, end, launched
from linewatch_plant.standin_greengrass import ACCOUNT, StandinGreengrass

SERVICES = ("broker", "capture", "console", "forwarder", "inference")
# Only what these verbs need of cloud/template.yaml: the bucket, and the outputs that they read.
STACK = {
    "Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}},
    "Outputs": {
        "ComponentBucketName": {"Value": {"Ref": "Bucket"}},
        "ApiUrl": {"Value": "https://api.example.com"},
    },
}
_NUMBERS = itertools.count(1)


@dataclass(slots=True)
class AwsAccount:
    """One environment of its own in the shared ministack, with a greengrassv2 of its own."""

    directory: Path
    name: str
    greengrass: StandinGreengrass
    environ: Mapping[str, str]
    bucket: str
    fleet: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The thing group's name."""
        return f"linewatch-{self.name}"

    @property
    def target(self) -> str:
        """The thing group's ARN."""
        return self.greengrass.group_arn(self.group)

    def client(self, service: str) -> Any:
        """A boto3 client."""
        return client(self.environ, service)

    def write_fleet(self, **environment: Any) -> Path:
        """fleet.yaml, with keys of the environment."""
        path = self.directory / "fleet.yaml"
        base = {
            "name": self.name,
            "account": ACCOUNT,
            "region": REGION,
            "repository_prefix": f"{self.name}/",
            "gate": {"signature": False},
        }
        path.write_text(yaml.safe_dump({"environments": [{**base, **environment}]}))
        return path

    def release(self, version: str, *changed: str, models: bool = False, promoted: bool = True) -> Path:
        """A release.yaml of this checkout; `changed` images differ from every other release's."""
        images = {}
        for service in SERVICES:
            text = image_manifest(f"{self.name} {service} {version if service in changed else ''}")
            if promoted:
                self._push(f"{self.name}/linewatch/{service}", text)
            images[service] = Image(
                repository=f"linewatch/{service}",
                digest=digest_of(text),
                platforms=["linux/amd64", "linux/arm64"],
            )
        found = {
            folder.parent.parent.name: ModelPackage(version=folder.name, digest=archive.digest(folder))
            for folder in sorted(MODELS.glob("*/releases/*"))
            if models
        }
        inputs = [*sorted(TEMPLATES.glob("*.*")), *sorted((MODELS / "trusted-keys").glob("*.pem"))]
        path = self.directory / f"release-{version}.yaml"
        write_release(
            Release(
                schema="linewatch.release/v1",
                version=version,
                commit="0" * 40,
                created=datetime(2026, 11, 1, tzinfo=UTC),
                images=images,
                models=found,
                recipes={
                    one.name: Template(
                        path=one.relative_to(TEMPLATES.parent).as_posix(), digest=digest_of(one.read_bytes())
                    )
                    for one in inputs
                },
                cloud=Template(path="cloud/template.yaml", digest=digest_of(b"")),
            ),
            path,
        )
        return path

    def run(self, *arguments: str | Path) -> Result:
        """`linewatch ...` in this process."""
        with environment(self.environ):
            return CliRunner().invoke(
                linewatch,
                ["--fleet", str(self.directory / "fleet.yaml"), *map(str, arguments)],
                catch_exceptions=False,
            )

    def add_device(self, thing: str, **described: Any) -> Any:
        """A core device of the environment's group, known to IoT and to Greengrass."""
        iot = self.client("iot")
        iot.create_thing(thingName=thing)
        iot.add_thing_to_thing_group(thingGroupName=self.group, thingName=thing)
        return self.greengrass.add_core(thing, self.group, **described)

    def latest(self) -> dict[str, Any]:
        """The group's present deployment, as boto3 gives it."""
        greengrass = self.client("greengrassv2")
        found = greengrass.list_deployments(targetArn=self.target)["deployments"][0]
        whole: dict[str, Any] = greengrass.get_deployment(deploymentId=found["deploymentId"])
        return whole

    def revisions(self) -> int:
        """How many deployments the group has had."""
        greengrass = self.client("greengrassv2")
        pages = greengrass.get_paginator("list_deployments").paginate(
            targetArn=self.target, historyFilter="ALL"
        )
        return sum(len(page["deployments"]) for page in pages)

    def _push(self, repository: str, manifest: bytes) -> None:
        ecr = self.client("ecr")
        with suppress(ecr.exceptions.RepositoryAlreadyExistsException):
            ecr.create_repository(repositoryName=repository)
        with suppress(ecr.exceptions.ImageAlreadyExistsException):
            ecr.put_image(
                repositoryName=repository, imageManifest=manifest.decode(), imageDigest=digest_of(manifest)
            )


def image_manifest(seed: str) -> bytes:
    """An image's index: its bytes are all that counts here."""
    blob = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2}
    digest = f"sha256:{hashlib.sha256(seed.encode()).hexdigest()}"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{**blob, "digest": digest}],
        }
    ).encode()


@contextmanager
def ministack(directory: Path) -> Iterator[str]:
    """The rest of AWS; yields its endpoint."""
    directory.mkdir(parents=True, exist_ok=True)
    process, port, _ = launched(directory, enforce_policies=False)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


@contextmanager
def account(directory: Path, endpoint: str) -> Iterator[AwsAccount]:
    """An environment of its own."""
    name = f"t{next(_NUMBERS)}"
    environ = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    s3 = client(environ, "s3")

    def artifact(uri: str) -> bytes | None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None
        return content

    standin = StandinGreengrass(artifact=artifact)
    try:
        environ["AWS_ENDPOINT_URL_GREENGRASSV2"] = standin.endpoint_url
        cloudformation = client(environ, "cloudformation")
        cloudformation.create_stack(StackName=f"linewatch-{name}", TemplateBody=json.dumps(STACK))
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName=f"linewatch-{name}", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        outputs = cloudformation.describe_stacks(StackName=f"linewatch-{name}")["Stacks"][0]["Outputs"]
        bucket = next(one["OutputValue"] for one in outputs if one["OutputKey"] == "ComponentBucketName")
        client(environ, "iot").create_thing_group(thingGroupName=f"linewatch-{name}")
        made = AwsAccount(directory, name, standin, environ, bucket)
        made.write_fleet()
        yield made
    finally:
        standin.stop()


def client(environ: Mapping[str, str], service: str) -> Any:
    """A boto3 client of an account."""
    endpoint = environ.get(f"AWS_ENDPOINT_URL_{service.upper()}", environ["AWS_ENDPOINT_URL"])
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """os.environ with these values."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
