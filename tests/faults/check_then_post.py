# SPDX-License-Identifier: Apache-2.0
"""The control: a work-orders function that checks its table, posts, and then stores what it posted.

What many a first draft does, with the product's own ERP client. A crash between the ERP's commit and the last line
leaves no trace, and the next delivery posts again.
"""

import json
import os
from functools import cache
from typing import Any

import boto3

from erp.choose import erp_of
from erp.port import Erp


@cache
def _erp() -> Erp:
    return erp_of(os.environ, boto3.client("secretsmanager"))


@cache
def _table() -> Any:
    return boto3.resource("dynamodb").Table(os.environ["CONTROL_TABLE"])


def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Takes every message for a fault that crossed its band."""
    for record in event["Records"]:
        asset_id = json.loads(record["body"])["asset"]["asset_id"]
        if "Item" in _table().get_item(Key={"asset_id": asset_id}, ConsistentRead=True):
            continue
        placed = _erp().create({"external_reference": f"control {asset_id}", "asset_id": asset_id})
        _table().put_item(Item={"asset_id": asset_id, "erp_id": placed.id})
    return {"batchItemFailures": []}
