# SPDX-License-Identifier: Apache-2.0
"""The policy that holds, and how an admin puts another one (work_orders/policies.py keeps the versions)."""

import json
from typing import Any

from api.errors import BadRequestError, ConflictError, named
from api.request import Request, digest
from work_orders.observing import Desk
from work_orders.order_items import text_of
from work_orders.policies import PolicyConflictError
from work_orders.policy_data import PATH, digest_of
from work_orders.policy_reading import PolicyError, parse


def bundled() -> dict[str, Any]:
    """The policy that the release brings."""
    document: dict[str, Any] = json.loads(PATH.read_text())
    return document


def current(_request: Request, desk: Desk) -> tuple[int, Any]:
    """The document that holds."""
    try:
        document = desk.policies.document(None) or bundled()
    except PolicyError as error:
        raise ConflictError(str(error)) from error
    return 200, _shown(document, desk)


def put(request: Request, desk: Desk) -> tuple[int, Any]:
    """The whole document in, the policy that holds from now on out; every function follows within a minute.

    X-Linewatch-Follows: digest of the policy that its author saw; another one holds: 409. Without it (consoles of releases
    before 0.3, scripts) it follows the one that holds as the request comes.
    """
    document = request.content()
    if not request.user:
        raise BadRequestError("X-Linewatch-User", "is missing: a policy is put by somebody")
    follows = digest("X-Linewatch-Follows", request.headers.get("x-linewatch-follows", ""))
    # Before the document is read that holds: what somebody puts in between is refused by `put`.
    over = desk.policies.held()
    try:
        # Its own digest: the answer to a first try was lost.
        if follows and follows != (present := current(request, desk)[1])["digest"] != parse(document).digest:
            raise ConflictError(
                f"somebody put version {present['version']} meanwhile: look at it and put again"
            )
        desk.policies.put(document, request.user, text_of(request.at_s), over)
    except PolicyError as error:
        raise named(error) from error
    except PolicyConflictError as error:
        raise ConflictError(str(error)) from error
    return 200, _shown(document, desk)


def _shown(document: dict[str, Any], desk: Desk) -> dict[str, Any]:
    return {
        "version": document["version"],
        "digest": digest_of(document),
        "document": document,
        # As it is now: the pilot may be over by its date, or be set by the stack's parameter.
        "pilot": desk.pilot,
    }
