# SPDX-License-Identifier: Apache-2.0
"""Lambda `enrich`: events from the IoT rules in; stored, joined with their asset, and passed on.

Guarantee: an event is counted as enriched exactly once, by the conditional write of its id. What follows the write
(queue, bus) is done again at every repeat, so a crash after the write loses nothing; everything downstream takes an
event id once.
"""

import hashlib
import json
import os
import random
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import ClientError

from enrich.enrichment import Event, PoisonError, asset_of, read
from work_orders.aws import SHORT

# A counter in one item would be a queue of its own; sixteen let a plant's Lambdas pass each other.
COUNTER_SHARDS = 16

log = Logger(serialize_stacktrace=False)
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@cache
def _dynamodb() -> Any:
    return boto3.resource("dynamodb", config=SHORT).meta.client


@cache
def _client(service: str) -> Any:
    return boto3.client(service, config=SHORT)


def _record(record: SQSRecord) -> None:
    """Every event of the message that can be is enriched; then the first that could not be is raised."""
    failures: list[Exception] = []
    for event in read(record.body):
        if isinstance(event, PoisonError):
            extra = {"message_id": record.message_id, "why": str(event), "body": record.body[:200]}
            log.error("poison", extra=extra)
            failures.append(event)
            continue
        try:
            enrich(event)
        except Exception as error:
            # Heals, or ends among the dead letters; Powertools alone would report the message without a word.
            log.exception("failed", extra={"event_id": event.event_id})
            failures.append(error)
    if failures and all(isinstance(failure, PoisonError) for failure in failures):
        # No use in waiting: the redrive policy takes it to the dead-letter queue after its quick repeats.
        _client("sqs").change_message_visibility(
            QueueUrl=os.environ["INSPECTIONS_QUEUE_URL"],
            ReceiptHandle=record.receipt_handle,
            VisibilityTimeout=0,
        )
    if failures:
        raise failures[0]


def enrich(event: Event) -> None:
    """Stores one event and passes it on. Safe to repeat at any point."""
    asset = None if event.is_engine else _asset(event)
    is_new = _store(event, asset)
    if event.is_engine:
        _announce(event)
    else:
        message = {"event": event.document, "asset": asset}
        _client("sqs").send_message(
            QueueUrl=os.environ["ENRICHED_QUEUE_URL"], MessageBody=json.dumps(message, separators=(",", ":"))
        )
    if asset is None and not event.is_engine:
        log.warning("unknown_asset", extra={"event_id": event.event_id, "station": event.station_key})
    log.info("enriched", extra={"event_id": event.event_id, "type": event.type, "is_new": is_new})


def _asset(event: Event) -> dict[str, Any] | None:
    answer = _dynamodb().get_item(
        TableName=os.environ["ASSETS_TABLE"], Key={"station_key": event.station_key}
    )
    return asset_of(answer["Item"]) if "Item" in answer else None


def _store(event: Event, asset: dict[str, Any] | None) -> bool:
    """Writes the event and counts it, both or neither; False when it was there already."""
    shard = int(hashlib.sha256(event.event_id.encode()).hexdigest(), 16) % COUNTER_SHARDS
    enriched_at = datetime.now(UTC)
    item = {
        "event_id": event.event_id,
        "type": event.type,
        "site": event.site,
        "line": event.line,
        "station": event.station,
        "epoch": event.epoch,
        "sequence": event.sequence,
        "asset_id": asset["asset_id"] if asset else "",
        "is_asset_known": asset is not None,
        "enriched_at": enriched_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        # DynamoDB deletes the item within days after this second.
        "expires_at": int((enriched_at + timedelta(days=int(os.environ["EVENT_DAYS"]))).timestamp()),
        "event": json.dumps(event.document, separators=(",", ":")),
    }
    put = {
        "TableName": os.environ["EVENTS_TABLE"],
        "Item": item,
        "ConditionExpression": "attribute_not_exists(event_id)",
    }
    count = {
        "TableName": os.environ["COUNTERS_TABLE"],
        "Key": {"name": f"enriched-{shard}"},
        "UpdateExpression": "ADD #kind :one",
        "ExpressionAttributeNames": {"#kind": "engine" if event.is_engine else "inspections"},
        "ExpressionAttributeValues": {":one": 1},
    }
    for _ in range(10):
        try:
            _dynamodb().transact_write_items(TransactItems=[{"Put": put}, {"Update": count}])
            return True
        except ClientError as error:
            reasons = [reason.get("Code") for reason in error.response.get("CancellationReasons", [])]
            if reasons[:1] == ["ConditionalCheckFailed"]:
                return False
            if "TransactionConflict" not in reasons:
                raise
            time.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter
    raise RuntimeError(f"counter shard {shard} is contended")


def _announce(event: Event) -> None:
    answer = _client("events").put_events(
        Entries=[
            {
                "EventBusName": os.environ["EVENT_BUS"],
                "Source": "edge.ai.inference",
                "DetailType": event.type,
                "Detail": json.dumps(event.document),
            }
        ]
    )
    # put_events answers 200 with the failure inside.
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"event bus: {answer['Entries'][0].get('ErrorMessage')}")


def handler(event: dict[str, Any], context: Any) -> Any:
    """SQS entry point. An empty batch only prepares the clients: whoever deploys can warm the function so."""
    if not event.get("Records"):
        _dynamodb(), _client("sqs")
        return {"batchItemFailures": []}
    return process_partial_response(event=event, record_handler=_record, processor=processor, context=context)
