# SPDX-License-Identifier: Apache-2.0
"""Putting a policy through the console: who may, what is written down, what goes to the cloud."""

import json
from typing import Any

import pytest
from console_process import PASSWORDS, CloudServer, Console

from work_orders.policy_data import PATH, digest_of

RELEASED: dict[str, Any] = json.loads(PATH.read_text())


@pytest.fixture
def policy(cloud: CloudServer) -> str:
    """The digest of the policy that holds."""
    digest = digest_of(RELEASED)
    cloud.stand_in.reports["policy"] = {
        "version": "2.0.0", "digest": digest, "document": RELEASED, "pilot": True,
    }  # fmt: skip
    return digest


def body(base: str, **changes: Any) -> dict[str, str]:
    return {"document": json.dumps(RELEASED | {"version": "2.1.0"} | changes), "base": base}


@pytest.mark.parametrize("role", ["viewer", "approver"])
def test_only_an_administrator_puts_a_policy(
    signing: Console, cloud: CloudServer, policy: str, role: str
) -> None:
    signing.sign_in(role, PASSWORDS[role])

    assert signing.http.get("/api/policy").json()["version"] == "2.0.0"
    answer = signing.post("/api/policy", body(policy))

    assert (answer.status_code, answer.json()["error"]) == (403, f"this needs the role admin; yours is {role}")  # fmt: skip
    assert cloud.stand_in.reports["policy"]["version"] == "2.0.0"


def test_without_the_sessions_token_nothing_is_put(signing: Console, cloud: CloudServer, policy: str) -> None:
    signing.sign_in("admin", PASSWORDS["admin"])

    assert signing.post("/api/policy", body(policy), **{"X-CSRF-Token": "guess"}).status_code == 403
    assert signing.post("/api/policy", body(policy), Origin="https://elsewhere.example").status_code == 403
    assert cloud.stand_in.reports["policy"]["version"] == "2.0.0"


def test_policy_is_in_the_audit_log_before_it_goes_and_what_became_of_it_after(
    signing: Console, cloud: CloudServer, policy: str
) -> None:
    signing.sign_in("admin", PASSWORDS["admin"])

    answer = signing.post("/api/policy", body(policy))
    refused = signing.post("/api/policy", body(answer.json()["digest"], version="2.2.0", needed=9))

    assert (answer.status_code, answer.json()["version"]) == (200, "2.1.0")
    assert answer.json()["puts"][0] | {"at": ""} == {
        "at": "", "by": "admin", "version": "2.1.0", "digest": answer.json()["digest"],
    }  # fmt: skip
    assert refused.status_code == 400
    assert "needed" in refused.json()["error"]
    entries = signing.http.get("/api/audit?limit=4").json()["entries"]
    told = [(one["what"], one["detail"].get("outcome") or one["detail"]["verb"]) for one in entries]
    assert sorted(told) == [("decision", "put_policy")] * 2 + [("outcome", "refused"), ("outcome", "taken")]
    decision = next(one["detail"] for one in entries if one["what"] == "decision")
    assert decision["body"].keys() == {"text_digest", "follows"}


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"document": "{}"}, "base: "), ({"base": "sha256:" + "0" * 64}, "document: "), ([], "body: "),
        ({"document": "{}", "base": "x"}, "base: "),
        ({"document": " " * 70_000, "base": "sha256:" + "0" * 64}, "document: at most 65536 bytes"),
        ({"document": " " * 200_000, "base": "sha256:" + "0" * 64}, "body: "),
    ],
)  # fmt: skip
def test_what_is_no_request_is_named_and_not_sent(
    signing: Console, cloud: CloudServer, policy: str, sent: Any, why: str
) -> None:
    signing.sign_in("admin", PASSWORDS["admin"])

    answer = signing.post("/api/policy", sent)

    assert answer.status_code == 400
    assert why in answer.json()["error"]
    assert "policy" not in cloud.stand_in.chains
