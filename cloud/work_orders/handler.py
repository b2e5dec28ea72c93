# SPDX-License-Identifier: Apache-2.0
"""Lambda `work_orders`: enriched events in, work orders out. Queue `enriched`, partial batch failures."""

import os
import random
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from dead_letters.burying import bury
from dead_letters.poison import PoisonError
from erp.deadline import within
from work_orders import messages
from work_orders.aws import SHORT
from work_orders.budget import AFTER_ERP_S, ORDER_S, left_of
from work_orders.metrics import tell_metrics
from work_orders.observing import observe, settle
from work_orders.placing import TryLaterError
from work_orders.wiring import desk

log = Logger(serialize_stacktrace=False)
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)


@cache
def _sqs() -> Any:
    return boto3.client("sqs", config=SHORT)


class NotBegunError(Exception):
    """No time is left for this message; the queue brings it to the next invocation."""


def _record(record: SQSRecord, lambda_context: Any = None) -> None:
    """One message: an enriched event, or {"place": reference} for an order whose approval could not be carried out."""
    left_s = left_of(lambda_context)()
    if left_s < ORDER_S:
        # Died in the middle, it would take the whole batch along, and the innocent to the dead letters.
        log.info("not_begun", extra={"message_id": record.message_id})
        _hide(record, random.uniform(1, 10))  # noqa: S311 - jitter, no secret
        raise NotBegunError
    tools = desk()  # a wrong environment is no poison
    try:
        message = messages.read(record.body)
        with within(left_s - AFTER_ERP_S):
            if "place" not in message:
                observe(message, tools)
            elif (order := tools.orders.get(message["place"])) is not None:
                settle(order, tools)
    except TryLaterError as error:
        _hide(record, error.delay_s)
        raise
    except PoisonError as error:
        # Nothing that this code will ever understand: no use in waiting, the dead-letter queue is its place.
        extra = {
            "message_id": record.message_id,
            "code": error.code,
            "why": error.why,
            "event_id": error.event_id,
        }
        log.error("poison", extra=extra)
        bury(_sqs(), os.environ["ENRICHED_DEAD_LETTERS_URL"], record.body, error)
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
    try:
        return process_partial_response(
            event=event, record_handler=_record, processor=processor, context=context
        )
    finally:
        tell_metrics()
