# SPDX-License-Identifier: Apache-2.0
"""An environment's work orders with all that belongs to them, read from its tables; and its ERP, where it is to be asked.

Names of tables and the ERP's settings are those of the function `api`, so that the command sees what the functions see.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from api.dossier import Dossier, gather
from api.policies import bundled
from erp.choose import erp_of
from erp.port import Erp, ErpError, ErpUnavailableError
from erp.settings import SettingsError
from erp.text import Anchor
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.published import stack_outputs
from work_orders.episodes import Episodes
from work_orders.observing import Events
from work_orders.orders import WorkOrder, WorkOrders
from work_orders.policies import Policies
from work_orders.records import Records

# Orders of one page of the index.
PAGE = 100
DOCS = "docs/why.md"
# Times in a row that the ERP did not answer, after which it is not asked for the orders that are left.
MOST_SILENCES = 3


@dataclass(frozen=True, slots=True)
class OrderDesk:
    """What the verbs about orders work with."""

    orders: WorkOrders
    records: Records
    events: Events
    policies: Policies
    # Made at the first use: one token for all orders.
    erp: Callable[[], Erp]
    # Of the ERP, the last in a row.
    _silences: list[str] = field(default_factory=list)

    def order(self, reference: str) -> WorkOrder:
        """The order. Raises BadInput."""
        with explained():
            order = self.orders.get(reference)
        if order is None:
            raise BadInput(
                f"REFERENCE {reference}: there is no such work order; `linewatch orders list` shows them"
            )
        return order

    def dossier(self, order: WorkOrder) -> Dossier:
        """All that is stored about the order."""
        with explained():
            return gather(order, self.orders, self.records, self.events, self.policies, bundled())

    def anchor(self, order: WorkOrder) -> tuple[Anchor | None, str]:
        """What the ERP's order bears of ours; None where it can't be asked or bears nothing, and why."""
        if not order.erp_id:
            return None, "the order is not in the ERP"
        if len(self._silences) >= MOST_SILENCES:
            return None, f"the ERP is not asked any more: {self._silences[-1]}"
        try:
            with explained():
                found = self.erp().anchor(order.erp_id)
        except SettingsError as error:
            return None, f"the ERP can't be asked: {error}"
        except ErpError as error:
            if isinstance(error, ErpUnavailableError):
                self._silences.append(str(error))
            remedy = f"; {DOCS} lists the permissions" if "AccessDenied" in str(error) else ""
            return None, f"the ERP was asked and did not tell: {error}{remedy}"
        self._silences.clear()
        return (
            (found, "") if found.tells(order.reference) else (None, "the ERP's order bears no record digest")
        )

    def references(self) -> list[str]:
        """Of every order, newest first."""
        found: list[str] = []
        after: tuple[str, str] | None = None
        while True:
            with explained():
                page = self.orders.references(None, PAGE, after)
                last = self.orders.get_many(page[-1:])
            found += page
            if len(page) < PAGE or not last:
                return found
            after = str(last[0].item["created_at"]), last[0].reference


def open_desk(account: Account) -> OrderDesk:
    """Raises CommandFailed where the environment is not provisioned, or by an older release."""
    outputs = stack_outputs(account)
    name = outputs.get("ApiFunctionName", "")
    with explained():
        found = account.reader("lambda").get_function_configuration(FunctionName=name)
    variables: dict[str, str] = found.get("Environment", {}).get("Variables", {})
    if "RECORDS_TABLE" not in variables:
        environment = account.environment.name
        raise CommandFailed(f"{environment} is of an older release; run `linewatch provision {environment}`")
    dynamodb = account.tables()
    records = Records(dynamodb, variables["RECORDS_TABLE"])
    return OrderDesk(
        orders=WorkOrders(
            dynamodb,
            variables["WORK_ORDERS_TABLE"],
            Episodes(dynamodb, variables["EPISODES_TABLE"]),
            records,
            outcomes_table=variables.get("OUTCOMES_TABLE", ""),
        ),
        records=records,
        events=Events(dynamodb, variables["EVENTS_TABLE"]),
        policies=Policies(dynamodb, variables["POLICIES_TABLE"], records),
        erp=cache(lambda: erp_of(variables, account.reader("secretsmanager"))),
    )
