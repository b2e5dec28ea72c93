# SPDX-License-Identifier: Apache-2.0
"""Whether anybody gets what is published to a topic: SNS takes a message that nobody is subscribed to, and says nothing."""

import time
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

FRESH_S = 60.0
"""How long an answer is believed."""
SILENT_S = 30.0
"""How long SNS is not asked again that gave no answer in time (aws.ANNOUNCE): each order would wait for it anew."""
# Of 100 subscriptions; what lies beyond them does not count.
MOST_PAGES = 5

log = Logger(child=True)


class Subscribers:
    """Of one topic. An address that has not confirmed, or is away, is none."""

    def __init__(self, sns: Any, topic_arn: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._sns = sns
        self._topic_arn = topic_arn
        self._clock = clock
        self._asked_at: float | None = None
        self._are_there = False
        self._silent_until = float("-inf")
        # Whether the last that was tried with SNS failed: then nobody knows whether anybody is there.
        self.is_unknown = False

    def are_there(self) -> bool:
        """False, too, while SNS can't be asked: who was not told must not be held to a deadline."""
        now = self._clock()
        if now < self._silent_until:
            return False
        if self._asked_at is None or now - self._asked_at > FRESH_S:
            try:
                self._are_there = self._ask()
            except (ClientError, BotoCoreError) as error:
                log.warning("subscribers_unknown", extra={"why": str(error)})
                self.failed(error)
                return False
            self._asked_at, self.is_unknown = now, False
            if not self._are_there:
                log.warning("nobody_subscribed", extra={"topic": self._topic_arn})
        return self._are_there

    def failed(self, error: ClientError | BotoCoreError) -> None:
        """SNS did not take what it was asked, or given."""
        self.is_unknown, self._asked_at = True, None
        if isinstance(error, (ReadTimeoutError, ConnectTimeoutError)):
            self._silent_until = self._clock() + SILENT_S

    def _ask(self) -> bool:
        more: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = self._sns.list_subscriptions_by_topic(TopicArn=self._topic_arn, **more)
            # "PendingConfirmation" and "Deleted" stand where a subscription has no ARN.
            if any(one["SubscriptionArn"].startswith("arn:") for one in page["Subscriptions"]):
                return True
            if not page.get("NextToken"):
                break
            more = {"NextToken": page["NextToken"]}
        return False
