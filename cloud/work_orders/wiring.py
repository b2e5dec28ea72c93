# SPDX-License-Identifier: Apache-2.0
"""Builds the work-orders desk from a Lambda's environment; the one place that names concrete adapters."""

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import boto3

from assets.registry import Registry
from erp.choose import erp_of
from work_orders import aws
from work_orders.announcing import Announcer
from work_orders.episodes import Episodes
from work_orders.observing import Desk, Events
from work_orders.orders import WorkOrders
from work_orders.patience import check_patience
from work_orders.placing import Patience
from work_orders.policies import Policies
from work_orders.policy_data import PolicyData
from work_orders.records import Records
from work_orders.shadow import DeviceShadow
from work_orders.states import StationStates


def desk_of(environment: Mapping[str, str]) -> Desk:
    """The desk; KeyError names a variable that is missing."""
    dynamodb = aws.dynamodb()
    episodes = Episodes(dynamodb, environment["EPISODES_TABLE"])
    records = Records(dynamodb, environment["RECORDS_TABLE"])
    policies = Policies(dynamodb, environment["POLICIES_TABLE"], records)
    data, pilot = holding(policies, environment["PILOT_MODE"])
    return Desk(
        data=data,
        policies=policies,
        records=records,
        dynamodb=dynamodb,
        patience=Patience(
            tries=3,
            retry_base_s=float(environment["RETRY_BASE_S"]),
            lease_s=float(environment["LEASE_S"]),
            settle_s=float(environment["SETTLE_S"]),
        ),
        pilot=pilot,
        events=Events(dynamodb, environment["EVENTS_TABLE"]),
        states=StationStates(dynamodb, environment["POLICY_STATE_TABLE"], environment["COUNTERS_TABLE"]),
        episodes=episodes,
        orders=WorkOrders(
            dynamodb,
            environment["WORK_ORDERS_TABLE"],
            episodes,
            records,
            outcomes_table=environment["OUTCOMES_TABLE"],
            order_days=float(environment["ORDER_DAYS"]),
        ),
        erp=erp_of(environment, boto3.client("secretsmanager", config=aws.SHORT)),
        shadow=DeviceShadow(boto3.client("iot-data", config=aws.SHADOW)),
        announcer=Announcer(
            boto3.client("sns", config=aws.ANNOUNCE),
            environment["ANNOUNCE_TOPIC_ARN"],
            environment["CONSOLE_URL"],
            environment["ENVIRONMENT"],
        ),
        assets=Registry(dynamodb, environment["ASSETS_TABLE"]) if "ASSETS_TABLE" in environment else None,
    )


def holding(policies: Policies, pilot_mode: str) -> tuple[PolicyData, bool]:
    """The policy of this moment, and whether every order awaits approval: "true", "false", or "policy": as that says."""
    data = policies.current()
    return data, data.pilot.holds(
        datetime.now(UTC).date()
    ) if pilot_mode == "policy" else pilot_mode == "true"


@cache
def _desk() -> Desk:
    made = desk_of(os.environ)
    # A desk of a test's own may hurry: its ERP has committed before the worker dies.
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        check_patience(
            lease_s=made.patience.lease_s,
            settle_s=made.patience.settle_s,
            erp_timeout_s=float(os.environ["ERP_TIMEOUT_S"]),
        )
    return made


def desk() -> Desk:
    """This process's desk, built at its first use, with the policy that holds now."""
    made = _desk()
    data, pilot = holding(made.policies, os.environ["PILOT_MODE"])
    return replace(made, data=data, pilot=pilot)
