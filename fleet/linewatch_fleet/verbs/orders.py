# SPDX-License-Identifier: Apache-2.0
"""`linewatch orders list|explain|replay`: work orders that stand still, why, and how they go on."""

import getpass
import time
from collections.abc import Iterator
from dataclasses import asdict

import click

from api.standing import standing
from api.telling import told
from api.why import entry_of
from linewatch_fleet import errors, options, output
from linewatch_fleet.aws import Account, explained
from linewatch_fleet.documented import documented
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.order_desk import PAGE, OrderDesk, open_desk
from work_orders.order_items import STATUSES, WorkOrder

DOCS = "docs/work-orders.md"
# Of each status, newest first; a shadow that is behind is found by its own index.
MOST = 1_000


@click.group()
def command() -> None:
    """Work orders that stand still: parked, stranded, or not shown on the device. docs/work-orders.md tells what to do."""


@command.command(name="list")
@click.argument("environment", metavar="ENVIRONMENT")
@click.option("--status", type=click.Choice(STATUSES), help="Every order of this status, stuck or not.")
@options.as_json
@click.pass_context
def list_orders(ctx: click.Context, environment: str, status: str | None, as_json: bool) -> None:
    """List orders that stand still. Exit code 4 when there are any."""
    with documented(DOCS):
        desk = _desk(ctx, environment)
        now_s = time.time()
        found = [(order, standing(order, now_s)) for order in _orders(desk, status)]
    shown = [(order, one) for order, one in found if status or one.is_stuck]
    if as_json:
        output.document(
            [{"reference": order.reference, "status": order.status, **asdict(one)} for order, one in shown]
        )
    else:
        output.table(
            ("ORDER", "STATUS", "SINCE", "ASSET", "FAILURE MODE", "WHY", "NEXT"),
            [
                (
                    order.reference,
                    order.status,
                    order.item["updated_at"],
                    order.asset_id,
                    order.failure_mode,
                    one.why,
                    one.next,
                )
                for order, one in shown
            ],
        )
    stuck = sum(one.is_stuck for _, one in found)
    output.say(f"{environment}: {stuck} orders stand still")
    if stuck and not status:
        ctx.exit(errors.UNHEALTHY)


@command.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.argument("reference", metavar="REFERENCE")
@options.as_json
@click.pass_context
def explain(ctx: click.Context, environment: str, reference: str, as_json: bool) -> None:
    """Say where an order stands, why, what was tried and what happens next."""
    with documented(DOCS):
        desk = _desk(ctx, environment)
        order = desk.order(reference)
        with explained():
            entries = [entry_of(entry) for entry in desk.records.of(reference)]
    one = standing(order, time.time())
    if as_json:
        output.document({"reference": reference, "status": order.status, **asdict(one), "entries": entries})
        return
    output.table(
        ("", ""), [(name, text) for name, text in asdict(one).items() if isinstance(text, str) and text]
    )
    output.table(
        ("NO", "AT", "BY", "WHAT HAPPENED"),
        [(entry["number"], entry["at"], entry["by"], entry["text"]) for entry in entries[-20:]],
    )


@command.command()
@click.argument("environment", metavar="ENVIRONMENT")
@click.argument("references", metavar="[REFERENCE]...", nargs=-1)
@click.option("--all-parked", is_flag=True, help="Every parked order.")
@click.option("--reason", default="", help="For the order's record.")
@click.option("--by", default=getpass.getuser, help="Who asks, for the record.", show_default="you")
@options.dry_run
@click.pass_context
def replay(
    ctx: click.Context, environment: str, references: tuple[str, ...], all_parked: bool, reason: str, by: str, dry_run: bool
) -> None:  # fmt: skip
    """Have parked orders tried again, refused ones too: the sweep takes them in its next run.

    Nothing is doubled: whatever the ERP has of it is found by its reference. One that is not parked stays as it is.
    """
    if bool(references) == all_parked:
        raise errors.BadInput("either references or --all-parked is due")
    with documented(DOCS):
        desk = _desk(ctx, environment)
        wanted = [desk.order(one) for one in references] if references else list(_of_status(desk, "parked"))
        done = 0
        for order in wanted:
            if order.status != "parked":
                output.say(f"{order.reference} is {order.status}, nothing to replay")
                continue
            if dry_run:
                output.say(f"would replay {order.reference}: {standing(order, time.time()).why}")
                continue
            with explained():
                now = desk.orders.replay(order.reference, by, reason)
            if now is None:
                raise GateRefused(f"{order.reference} is being worked on at this moment; try again")
            done += 1
            output.say(
                f"{order.reference}: {told('replayed', by, {'reason': reason})}; the sweep takes it in its next run"
            )
    output.say(f"{environment}: {done} of {len(wanted)} orders replayed")


def _desk(ctx: click.Context, environment: str) -> OrderDesk:
    account = Account(options.environment_of(ctx, environment))
    account.check()
    return open_desk(account)


def _orders(desk: OrderDesk, status: str | None) -> Iterator[WorkOrder]:
    if status:
        yield from _of_status(desk, status)
        return
    seen: set[str] = set()
    for one in ("parked", "creating"):
        for order in _of_status(desk, one):
            seen.add(order.reference)
            yield order
    for shadow in ("pending", "left_out"):
        with explained():
            behind = desk.orders.get_many(desk.orders.without_shadow(PAGE, shadow))
        for order in behind:
            if order.reference not in seen and order.shadow == shadow:
                seen.add(order.reference)
                yield order


def _of_status(desk: OrderDesk, status: str) -> Iterator[WorkOrder]:
    after: tuple[str, str] | None = None
    for _ in range(MOST // PAGE):
        with explained():
            references = desk.orders.references(status, PAGE, after)
            found = desk.orders.get_many(references)
        yield from (order for order in found if order.status == status)
        if len(references) < PAGE or not found:
            return
        after = str(found[-1].item["created_at"]), found[-1].reference
    output.say(f"only the latest {MOST} orders that are {status} are looked at")
