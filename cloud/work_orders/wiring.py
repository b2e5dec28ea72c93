# SPDX-License-Identifier: Apache-2.0
"""Builds the work-orders desk from a Lambda's environment; the one place that names concrete adapters."""

import os
from collections.abc import Mapping
from functools import cache

import boto3

from work_orders.aws import SHORT
from work_orders.episodes import Episodes
from work_orders.erp import HttpErp, Tokens, credentials_from_secret
from work_orders.observing import Desk, Events
from work_orders.orders import WorkOrders
from work_orders.placing import Patience
from work_orders.policy_data import load
from work_orders.shadow import DeviceShadow
from work_orders.states import StationStates


def desk_of(environment: Mapping[str, str]) -> Desk:
    """The desk; KeyError names a variable that is missing."""
    dynamodb = boto3.resource("dynamodb", config=SHORT).meta.client
    timeout_s = float(environment["ERP_TIMEOUT_S"])
    base_url = environment["ERP_BASE_URL"]
    tokens = Tokens(
        base_url.rstrip("/") + "/oauth/token",
        credentials_from_secret(boto3.client("secretsmanager", config=SHORT), environment["ERP_SECRET_ID"]),
        timeout_s,
    )
    episodes = Episodes(dynamodb, environment["EPISODES_TABLE"])
    return Desk(
        data=load(),
        dynamodb=dynamodb,
        patience=Patience(
            tries=3,
            retry_base_s=float(environment["RETRY_BASE_S"]),
            lease_s=float(environment["LEASE_S"]),
            settle_s=float(environment["SETTLE_S"]),
        ),
        pilot=environment["PILOT_MODE"] == "true",
        events=Events(dynamodb, environment["EVENTS_TABLE"]),
        states=StationStates(dynamodb, environment["POLICY_STATE_TABLE"], environment["COUNTERS_TABLE"]),
        episodes=episodes,
        orders=WorkOrders(dynamodb, environment["WORK_ORDERS_TABLE"], episodes),
        erp=HttpErp(base_url, tokens, timeout_s),
        shadow=DeviceShadow(boto3.client("iot-data", config=SHORT)),
    )


@cache
def desk() -> Desk:
    """This process's desk, built at its first use."""
    return desk_of(os.environ)
