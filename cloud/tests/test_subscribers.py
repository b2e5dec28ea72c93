# SPDX-License-Identifier: Apache-2.0
"""Who hears what is published. Answers are those that AWS documents: the stand-in gives unconfirmed ones an ARN at once."""

import time
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber
from test_sweep import silent_endpoint

from work_orders.aws import ANNOUNCE
from work_orders.subscribers import FRESH_S, MOST_PAGES, SILENT_S, Subscribers

TOPIC = "arn:aws:sns:eu-central-1:111111111111:announcements"


def page(*arns: str, more: str = "") -> dict[str, Any]:
    found = [{"SubscriptionArn": arn, "TopicArn": TOPIC, "Protocol": "email"} for arn in arns]
    return {"Subscriptions": found, **({"NextToken": more} if more else {})}


def asked(*pages: dict[str, Any]) -> tuple[Subscribers, Stubber, list[float]]:
    sns = boto3.client("sns", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    stub = Stubber(sns)
    for one in pages:
        stub.add_response("list_subscriptions_by_topic", one)
    stub.activate()
    now = [0.0]
    return Subscribers(sns, TOPIC, lambda: now[0]), stub, now


@pytest.mark.parametrize(
    ("pages", "are_there"),
    [
        ([page()], False),
        ([page("PendingConfirmation", "Deleted")], False),
        ([page("PendingConfirmation", f"{TOPIC}:1")], True),
        ([page("PendingConfirmation", more="2"), page(f"{TOPIC}:1")], True),
        ([page("Deleted", more="x")] * MOST_PAGES, False),
    ],
)
def test_only_who_has_confirmed_hears_anything(pages: list[dict[str, Any]], are_there: bool) -> None:
    subscribers, stub, _ = asked(*pages)

    assert subscribers.are_there() is are_there
    stub.assert_no_pending_responses()


def test_an_answer_is_believed_for_a_minute_and_no_longer() -> None:
    subscribers, stub, now = asked(page(), page(f"{TOPIC}:1"))
    assert [subscribers.are_there(), subscribers.are_there()] == [False, False]
    now[0] = FRESH_S + 1

    assert [subscribers.are_there(), subscribers.are_there()] == [True, True]
    stub.assert_no_pending_responses()


def test_while_sns_is_away_nobody_is_there_and_the_next_look_asks_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    none = Config(retries={"max_attempts": 0}, connect_timeout=1)
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    nowhere = boto3.client(
        "sns", endpoint_url="http://127.0.0.1:9", region_name="eu-central-1", config=none, **keys
    )
    subscribers = Subscribers(nowhere, TOPIC)

    assert [subscribers.are_there(), subscribers.are_there()] == [False, False]
    assert [record.message for record in caplog.records].count("subscribers_unknown") == 2


def test_sns_that_falls_silent_costs_one_time_out_and_is_asked_again_after_its_pause() -> None:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    now = [0.0]
    with silent_endpoint() as (url, taken):
        sns = boto3.client("sns", region_name="eu-central-1", config=ANNOUNCE, endpoint_url=url, **keys)
        subscribers = Subscribers(sns, TOPIC, lambda: now[0])
        begin = time.monotonic()
        answers = [subscribers.are_there() for _ in range(10)]
        took_s = time.monotonic() - begin

        assert answers == [False] * 10
        assert subscribers.is_unknown
        assert len(taken) == 1
        # With SHORT a single one of them took 40 s.
        assert took_s < 30
        now[0] = SILENT_S + 1
        assert not subscribers.are_there()
        assert len(taken) == 2


def test_a_publish_that_got_no_answer_is_a_silence_too() -> None:
    subscribers, stub, now = asked(page(f"{TOPIC}:1"), page(f"{TOPIC}:1"))
    assert subscribers.are_there()

    subscribers.failed(ReadTimeoutError(endpoint_url="https://sns"))

    assert (subscribers.are_there(), subscribers.is_unknown) == (False, True)
    now[0] = SILENT_S + 1
    assert (subscribers.are_there(), subscribers.is_unknown) == (True, False)
    stub.assert_no_pending_responses()
