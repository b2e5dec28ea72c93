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
from functools import cache, partial
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import ClientError

from assets import unknown
from assets.registry import AssetUnusableError, Registry
from dead_letters.burying import CantBuryError, bury
from dead_letters.poison import PoisonError
from enrich.enrichment import Event, read
from enrich.metrics import Tally
from enrich.model_records import record_model
from work_orders import aws
from work_orders.aws import SHORT
from work_orders.observed import observation_of
from work_orders.records import Records

# A counter in one item would be a queue of its own; sixteen let a plant's Lambdas pass each other.
COUNTER_SHARDS = 16

# What goes to the bus only where the parameter PartsOnBus asks for it: a call, and its price, for every part.
PARTS = frozenset({"InferenceCompleted", "InferenceError"})

log = Logger(serialize_stacktrace=False)
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@cache
def _dynamodb() -> Any:
    return aws.dynamodb()


@cache
def _client(service: str) -> Any:
    return boto3.client(service, config=SHORT)


def _record(record: SQSRecord, tally: Tally) -> None:
    """Every event of the message that can be is enriched, then poison is buried; what failed otherwise is raised.

    In this order, so that a message that comes again has buried nothing yet.
    """
    poison: list[PoisonError] = []
    failures: list[Exception] = []
    for event in read(record.body, keep=timedelta(days=int(os.environ["EVENT_DAYS"]))):
        try:
            if isinstance(event, PoisonError):
                raise event
            enrich(event, tally)
        except PoisonError as error:
            poison.append(error)
        except Exception as error:
            # Heals, or ends among the dead letters; Powertools alone would report the message without a word.
            log.exception("failed", extra={"event_id": event.event_id})
            failures.append(error)
    if failures:
        raise failures[0]
    for one in poison:
        _bury(one, record)
    tally.poison += len(poison)


def _bury(poison: PoisonError, record: SQSRecord) -> None:
    """Raises CantBuryError where the letter is too large: the redrive policy takes the message after its quick repeats."""
    extra = {
        "message_id": record.message_id,
        "code": poison.code,
        "why": poison.why,
        "event_id": poison.event_id,
    }
    log.error("poison", extra=extra)
    try:
        bury(_client("sqs"), os.environ["INSPECTIONS_DEAD_LETTERS_URL"], poison.body or record.body, poison)
    except CantBuryError:
        _client("sqs").change_message_visibility(
            QueueUrl=os.environ["INSPECTIONS_QUEUE_URL"],
            ReceiptHandle=record.receipt_handle,
            VisibilityTimeout=0,
        )
        raise


def enrich(event: Event, tally: Tally | None = None) -> None:
    """Stores one event and passes it on. Safe to repeat at any point.

    Raises:
        PoisonError: the registry's row of its station can't be used. The event is stored; a replay passes it on.
    """
    tally = tally or Tally()
    try:
        asset = _asset(event)
    except PoisonError:
        _store(event, None)
        raise
    is_new = _store(event, asset)
    if event.is_engine:
        _announce(event)
    else:
        message = {"event": event.document, "asset": asset}
        _client("sqs").send_message(
            QueueUrl=os.environ["ENRICHED_QUEUE_URL"], MessageBody=json.dumps(message, separators=(",", ":"))
        )
    if event.type in PARTS and os.environ["PARTS_ON_BUS"] == "true":
        _announce(event)
    if event.type == "ModelLoadSuccess":
        record_model(Records(_dynamodb(), os.environ["RECORDS_TABLE"]), event, _now())
    if asset is None and event.is_of_a_station:
        tally.unknown_assets += is_new
        log.warning("unknown_asset", extra={"event_id": event.event_id, "station": event.station_key})
        unknown.note(_dynamodb(), os.environ["COUNTERS_TABLE"], event.station_key, _now())
    if is_new and event.type == "InferenceCompleted":
        tally.predicted(event.line, is_known=asset is not None)
    log.info("enriched", extra={"event_id": event.event_id, "type": event.type, "is_new": is_new})


def _asset(event: Event) -> dict[str, Any] | None:
    """The registry's card of the event's station; None where it has none. Raises PoisonError."""
    if not event.is_of_a_station:
        return None
    try:
        asset = Registry(_dynamodb(), os.environ["ASSETS_TABLE"]).get(event.station_key)
    except AssetUnusableError as error:
        text = json.dumps(event.document, separators=(",", ":"))
        raise PoisonError("asset_unusable", str(error), event.event_id, text) from error
    return asset.card() if asset else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
    if event.is_of_a_station:
        # In the index by_station, for a month replayed against another policy; other events are not in it.
        item |= {"station_key": event.station_key, "observation": observation_of(event.document)}
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
    tally = Tally()
    try:
        return process_partial_response(
            event=event, record_handler=partial(_record, tally=tally), processor=processor, context=context
        )
    finally:
        tally.told()
