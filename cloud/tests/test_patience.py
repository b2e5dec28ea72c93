# SPDX-License-Identifier: Apache-2.0
"""A lease and a settling time under which an order could come to be twice are refused by name."""

from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from erp.settings import SettingsError
from linewatch_plant.standin_cloud import QUICK
from work_orders import wiring
from work_orders.budget import LONGEST_S
from work_orders.patience import SHORTEST_SETTLE_S, check_patience, shortest_lease_s

TEMPLATE = cfn_yaml.load(str(Path(__file__).parents[1] / "template.yaml"))
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]


def default(name: str) -> float:
    return float(PARAMETERS[name]["Default"])


def test_a_lease_lasts_as_long_as_its_worker_may_ask_and_the_erp_may_commit() -> None:
    assert shortest_lease_s(erp_timeout_s=5, settle_s=30) == 4 * 5 + 30
    assert shortest_lease_s(erp_timeout_s=60, settle_s=30) == LONGEST_S + 30, "its invocation ends before"
    functions = [one for one in TEMPLATE["Resources"].values() if one["Type"] == "AWS::Lambda::Function"]
    assert max(one["Properties"]["Timeout"] for one in functions) == LONGEST_S


@pytest.mark.parametrize("erp_timeout_s", [1, 5, 15, 60])
def test_the_templates_own_numbers_are_enough_for_every_time_of_the_erp(erp_timeout_s: float) -> None:
    check_patience(
        lease_s=default("LeaseSeconds"), settle_s=default("SettleSeconds"), erp_timeout_s=erp_timeout_s
    )


def test_the_demos_numbers_are_enough() -> None:
    check_patience(
        lease_s=float(QUICK["LeaseSeconds"]),
        settle_s=float(QUICK["SettleSeconds"]),
        erp_timeout_s=float(QUICK.get("ErpTimeoutSeconds", default("ErpTimeoutSeconds"))),
    )


def test_the_templates_least_numbers_are_those_of_the_functions() -> None:
    least = {
        name: PARAMETERS[name]["MinValue"] for name in ("ErpTimeoutSeconds", "LeaseSeconds", "SettleSeconds")
    }

    assert least["SettleSeconds"] == SHORTEST_SETTLE_S
    assert least["LeaseSeconds"] == shortest_lease_s(least["ErpTimeoutSeconds"], least["SettleSeconds"])
    check_patience(
        lease_s=least["LeaseSeconds"],
        settle_s=least["SettleSeconds"],
        erp_timeout_s=least["ErpTimeoutSeconds"],
    )


@pytest.mark.parametrize(
    ("lease_s", "settle_s", "names"),
    [
        (49.9, 30, ("LeaseSeconds (LEASE_S) is 49.9", "LeaseSeconds to at least 50")),
        (0, 30, ("LEASE_S", "LeaseSeconds")),
        (float("nan"), 30, ("LEASE_S", "LeaseSeconds")),
        (90, 0, ("SettleSeconds (SETTLE_S) is 0", "set it to at least 1")),
        (90, -30, ("SETTLE_S", "SettleSeconds")),
        (90, float("nan"), ("SETTLE_S", "SettleSeconds")),
    ],
)
def test_what_would_double_an_order_is_refused_by_name(
    lease_s: float, settle_s: float, names: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError) as refused:
        check_patience(lease_s=lease_s, settle_s=settle_s, erp_timeout_s=5)

    for name in names:
        assert name in str(refused.value)


def test_a_function_with_too_short_a_lease_does_not_begin(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**environment, "LEASE_S": "2", "AWS_LAMBDA_FUNCTION_NAME": "work_orders"}.items():
        monkeypatch.setenv(name, value)
    wiring._desk.cache_clear()

    with pytest.raises(SettingsError, match=r"LEASE_S\) is 2"):
        wiring.desk()

    monkeypatch.setenv("LEASE_S", environment["LEASE_S"])
    assert wiring.desk().patience.lease_s == float(environment["LEASE_S"])
    wiring._desk.cache_clear()
