# SPDX-License-Identifier: Apache-2.0
"""The policy that holds, which versions were put before it, and how an admin puts another one.

The document goes to the cloud as it was written, byte by byte: the cloud's own reader names what is wrong with it, a key
that is there twice included.
"""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from linewatch_console.cloud_api import CloudRefused
from linewatch_console.deciding import Deciding
from linewatch_console.orders import Orders
from linewatch_console.people import Person

CHAIN = "policy"
MOST_PUTS = 50
LARGEST_POLICY_BYTES = 65_536
"""What the API takes."""
LARGEST_BODY_BYTES = 2 * LARGEST_POLICY_BYTES + 1024
"""The document as a JSON text within a JSON object: a line's end or a quote takes two bytes."""


class NotAPolicy(Exception):
    """The body can't be used; the text names the field and what it has to be."""


class _Put(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    document: Annotated[str, StringConstraints(min_length=2)]
    base: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Digest of the policy that held when the person began to write."""


async def shown(orders: Orders) -> dict[str, Any]:
    """The cloud's answer, and `puts`: the versions that people put, newest first. Raises CloudAway, CloudRefused.

    `text` is the document to be read and changed: a browser would make 1 of 1.0, and that has another digest.
    """
    answer = await orders.api.document("/policy")
    try:
        entries = await orders.api.records(CHAIN)
    except CloudRefused as error:
        if error.status != 404:
            raise
        entries = []
    puts = []
    for entry in reversed(entries[-MOST_PUTS:]):
        detail = json.loads(entry.detail) if isinstance(entry.detail, str) and entry.detail else entry.detail
        told = detail if isinstance(detail, dict) else {}
        puts.append(
            {"at": entry.at, "by": entry.by, "version": told.get("version"), "digest": told.get("digest")}
        )
    text = json.dumps(answer.get("document"), indent=2, ensure_ascii=False)
    return answer | {"puts": puts, "text": text}


def read(content: bytes) -> tuple[str, str]:
    """The document's text and the digest of what it is to follow. Raises NotAPolicy."""
    try:
        put = _Put.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "body"
        raise NotAPolicy(f"{name}: {first['msg']}") from error
    if len(put.document.encode()) > LARGEST_POLICY_BYTES:
        raise NotAPolicy(f"document: at most {LARGEST_POLICY_BYTES} bytes are taken")
    return put.document, put.base


async def put(
    orders: Orders, deciding: Deciding, person: Person, address: str, document: str, base: str
) -> dict[str, Any]:
    """Makes it the policy that holds, where the one that the person saw still does.

    Looked at here, so that nothing is written down of what can't be sent; and by the cloud as it writes, so that of two
    who put at the same moment the second is refused. Raises as Deciding.decide.
    """
    present = await orders.api.document("/policy")
    if present.get("digest") != base:
        raise CloudRefused(
            409, f"somebody put another policy meanwhile: version {present.get('version')} holds now; look at it first"
        )  # fmt: skip
    digest = "sha256:" + hashlib.sha256(document.encode()).hexdigest()
    await deciding.put_policy(person, address, document, {"text_digest": digest, "follows": base})
    return await shown(orders)
