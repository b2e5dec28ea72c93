# SPDX-License-Identifier: Apache-2.0
"""Amazon ECR in front of ministack: what ministack's own ECR lacks, and where the real one is stricter.

The API is ministack's but for DescribeImageScanFindings, which it has not; answers are checked against botocore's model.
The registry is ministack's too, with what the real one does and ministack's doesn't:
- every account has a host of its own, named by GetAuthorizationToken, and wants that token (ministack takes anybody);
- a manifest is taken only when everything that it points to is there;
- the referrers API;
- PATCH answers 201, and a second PATCH of one upload is accepted and thrown away (aws/containers-roadmap#2831);
- no mount from another account; from another repository only where the account turned it on.

`calls` holds every operation as IAM names it, for comparing with the policy that docs/promoting.md gives.
"""

import base64
import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import botocore.session
import requests
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from linewatch_plant.rest_json import Serving, _check_own, _written

TOKEN = "standin-token"
INDEX = "application/vnd.oci.image.index.v1+json"

# What a request to the registry needs of IAM, as AWS documents it for pushing and pulling.
_BLOB_READ = "ecr:GetDownloadUrlForLayer"
_CHECK = "ecr:BatchCheckLayerAvailability"


@dataclass(slots=True)
class Account:
    """One account's registry."""

    id: str
    scans: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Members of DescribeImageScanFindings' answer by repository and digest."""
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    patched: set[str] = field(default_factory=set)
    mounts: bool = False
    """The account setting BLOB_MOUNTING."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """(IAM action, repository or *)."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of every request to the registry."""


class StandinEcr:
    """Serves the API at `url`, and each account's registry at its own host."""

    def __init__(self, ministack_url: str, region: str, account_ids: tuple[str, ...]) -> None:
        self._ministack = ministack_url
        self._region = region
        self._session = requests.Session()
        self._lock = threading.Lock()
        self._model = botocore.session.get_session().get_service_model("ecr")
        self.accounts = {number: Account(number) for number in account_ids}
        self._servings = {
            number: Serving(cast(Any, _Application(self, account)))
            for number, account in self.accounts.items()
        }
        self._api = Serving(cast(Any, _Application(self, None)))
        self.url = self._api.url

    def host(self, account_id: str) -> str:
        """The registry of an account."""
        return self._servings[account_id].url.removeprefix("http://")

    def stop(self) -> None:
        """Ends every server."""
        for serving in (*self._servings.values(), self._api):
            serving.stop()

    def api(self, headers: dict[str, str], body: bytes) -> Response:
        """One request of an AWS SDK."""
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        account = self.accounts.get(
            headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
        )
        if account and operation:
            members = json.loads(body or b"{}")
            names = members.get("repositoryNames") or [members.get("repositoryName", "*")]
            account.calls += [(f"ecr:{operation}", name) for name in names]
            if operation == "DescribeImageScanFindings":
                return self._scan_findings(account, members)
        answer = self._forward("POST", "/", headers, body)
        if account and operation == "GetAuthorizationToken" and answer.status_code == 200:
            content = json.loads(bytes(answer.body))
            token = base64.b64encode(f"AWS:{TOKEN}-{account.id}".encode()).decode()
            content["authorizationData"][0].update(
                authorizationToken=token, proxyEndpoint=self._servings[account.id].url
            )
            return Response(json.dumps(content), 200, media_type=answer.media_type)
        return answer

    def _scan_findings(self, account: Account, members: dict[str, Any]) -> Response:
        repository, digest = members["repositoryName"], members["imageId"].get("imageDigest", "")
        found = account.scans.get((repository, digest))
        if found is None:
            content = {
                "__type": "ScanNotFoundException",
                "message": f"Image scan does not exist for the image with '{digest}'",
            }
            return Response(json.dumps(content), 400, media_type="application/x-amz-json-1.1")
        answer = {
            "registryId": account.id,
            "repositoryName": repository,
            "imageId": {"imageDigest": digest},
            **found,
        }
        shape = self._model.operation_model("DescribeImageScanFindings").output_shape
        _check_own(shape, answer)
        return Response(json.dumps(_written(shape, answer)), 200, media_type="application/x-amz-json-1.1")

    def registry(
        self, account: Account, method: str, path: str, query: str, headers: dict[str, str], body: bytes
    ) -> Response:
        """One request to an account's registry."""
        account.requests.append((method, path))
        wanted = base64.b64encode(f"AWS:{TOKEN}-{account.id}".encode()).decode()
        if headers.get("authorization") != f"Basic {wanted}":
            challenge = f'Basic realm="https://{self.host(account.id)}/",service="ecr.amazonaws.com"'
            return _refused(401, "UNAUTHORIZED", "Not Authorized", {"WWW-Authenticate": challenge})
        repository, kind, reference = _parts(path)
        for action in _actions(method, kind, reference):
            account.calls.append((action, repository))
        if kind == "referrers":
            return self._referrers(account, repository, reference)
        if method == "POST" and "mount=" in query and not account.mounts:
            query = ""
        if method == "PATCH":
            if path in account.patched:
                return Response(status_code=201, headers={"Location": path, "Range": "0-0"})
            account.patched.add(path)
        if method == "PUT" and kind == "manifests" and (lacking := self._lacking(account, repository, body)):
            return _refused(404, "MANIFEST_BLOB_UNKNOWN", f"{lacking} does not exist in the repository")
        answer = self._forward(method, path + (f"?{query}" if query else ""), headers, body, account.id)
        if method == "PATCH" and answer.status_code == 202:
            answer.status_code = 201
        if method == "PUT" and kind == "manifests" and answer.status_code == 201:
            with self._lock:
                account.manifests[repository, answer.headers["docker-content-digest"]] = body
        return answer

    def _lacking(self, account: Account, repository: str, body: bytes) -> str:
        """The first digest that a manifest points to and the repository has not got."""
        document = json.loads(body)
        for child in document.get("manifests", []):
            if (repository, child["digest"]) not in account.manifests:
                return str(child["digest"])
        blobs = [document["config"]] if "config" in document else []
        for blob in [*blobs, *document.get("layers", [])]:
            found = self._forward("HEAD", f"/v2/{repository}/blobs/{blob['digest']}", {}, b"", account.id)
            if found.status_code != 200:
                return str(blob["digest"])
        return ""

    def _referrers(self, account: Account, repository: str, digest: str) -> Response:
        listed = []
        with self._lock:
            for (name, own), content in account.manifests.items():
                document = json.loads(content)
                if name == repository and (document.get("subject") or {}).get("digest") == digest:
                    listed.append({"mediaType": document["mediaType"], "digest": own, "size": len(content)})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        return Response(json.dumps(index), 200, media_type=INDEX)

    def _forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes, account_id: str = ""
    ) -> Response:
        passed = {key: value for key, value in headers.items()
                  if key in {"content-type", "x-amz-target", "x-amz-date", "accept"} or (key == "authorization" and not account_id)}  # fmt: skip
        if account_id:
            passed["host"] = f"{account_id}.dkr.ecr.{self._region}.amazonaws.com"
        found = self._session.request(method, self._ministack + path, headers=passed, data=body, timeout=30)
        kept = {key: value for key, value in found.headers.items()
                if key.lower() not in {"connection", "transfer-encoding", "date", "server", "content-encoding"}}  # fmt: skip
        return Response(found.content, found.status_code, kept)


class _Application:
    """The ASGI side of one server."""

    def __init__(self, ecr: StandinEcr, account: Account | None) -> None:
        self._ecr = ecr
        self._account = account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        headers = {key.decode().lower(): value.decode() for key, value in scope["headers"]}
        body = await request.body()
        if self._account:
            query = scope["query_string"].decode()
            response = await run_in_threadpool(
                self._ecr.registry, self._account, request.method, scope["path"], query, headers, body
            )
        else:
            response = await run_in_threadpool(self._ecr.api, headers, body)
        await response(scope, receive, send)


def scanned(*findings: tuple[str, str], status: str = "COMPLETE") -> dict[str, Any]:
    """A scan's answer with findings as (name, severity), as basic scanning gives it."""
    return {
        "imageScanStatus": {"status": status},
        "imageScanFindings": {
            "imageScanCompletedAt": datetime(2026, 11, 1, tzinfo=UTC),
            "findings": [{"name": name, "severity": severity} for name, severity in findings],
        },
    }


def _parts(path: str) -> tuple[str, str, str]:
    """Repository, kind and reference of /v2/<repository>/<kind>/<reference>."""
    for kind in ("manifests", "referrers", "blobs"):
        repository, found, reference = path.removeprefix("/v2/").rpartition(f"/{kind}/")
        if found:
            return repository, kind, reference
    return path, "", ""


def _actions(method: str, kind: str, reference: str) -> list[str]:
    if kind == "blobs" and reference.startswith("uploads"):
        return {
            "POST": ["ecr:InitiateLayerUpload"],
            "PATCH": ["ecr:UploadLayerPart"],
            "PUT": ["ecr:CompleteLayerUpload"],
        }.get(method, [])
    if kind == "blobs":
        return [_CHECK] if method == "HEAD" else [_BLOB_READ]
    return ["ecr:PutImage"] if method == "PUT" else ["ecr:BatchGetImage"]


def _refused(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    content = {"errors": [{"code": code, "message": message}]}
    return Response(json.dumps(content), status, headers, "application/json")
