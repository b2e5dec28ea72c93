# SPDX-License-Identifier: Apache-2.0
"""Lambda `work_orders`: enriched events in, work orders out. Queue `enriched`, partial batch failures."""

import json
import os
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from work_orders.aws import SHORT
from work_orders.observing import observe, settle
from work_orders.placing import TryLaterError
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@cache
def _sqs() -> Any:
    return boto3.client("sqs", config=SHORT)


def _record(record: SQSRecord) -> None:
    """One message: an enriched event, or {"place": reference} for an order whose approval could not be carried out."""
    tools = desk()  # a wrong environment is no poison
    try:
        message = json.loads(record.body)
        if "place" in message:
            order = tools.orders.get(message["place"])
            if order is not None:
                settle(order, tools)
        else:
            observe(message, tools)
    except TryLaterError as error:
        _hide(record, error.delay_s)
        raise
    except (ValueError, KeyError, TypeError) as error:
        # Nothing that this code will ever understand: no use in waiting, the dead-letter queue is its place.
        log.exception("poison", extra={"message_id": record.message_id, "why": repr(error)})
        _hide(record, 0)
        raise
    except Exception:
        # Heals, or ends among the dead letters; Powertools alone would report the message without a word.
        log.exception("failed", extra={"message_id": record.message_id})
        raise


def _hide(record: SQSRecord, delay_s: float) -> None:
    _sqs().change_message_visibility(
        QueueUrl=os.environ["ENRICHED_QUEUE_URL"],
        ReceiptHandle=record.receipt_handle,
        VisibilityTimeout=round(delay_s),
    )


def handler(event: dict[str, Any], context: Any) -> Any:
    """SQS entry point. An empty batch only builds the desk: whoever deploys can warm the function so."""
    if not event.get("Records"):
        desk()
        return {"batchItemFailures": []}
    return process_partial_response(event=event, record_handler=_record, processor=processor, context=context)
