# SPDX-License-Identifier: Apache-2.0
"""The pilot's exit in words: what is justified, about whom, and what to doubt. Pure."""

from collections.abc import Mapping, Sequence
from datetime import date

from outcomes.certifying import Candidate

_MOVES = {
    "months": "it begins so many months ago",
    "too_many": "it holds more outcomes than one report reads, and the oldest are left out",
    "forgotten": "outcomes before it are forgotten",
}


def looks(beginning: str, moves: str, first_day: date) -> str:
    """For how many looks the guarantee holds. `moves`: why the window's beginning does, empty where it stays."""
    if moves:
        remedy = (
            "Leave the months out, or state a first day."
            if moves == "months"
            else "State a first day that is later (since)."
        )
        return (
            f"The beginning of this window moves: {_MOVES[moves]}. So the guarantee holds for one look, at a moment that was "
            f"chosen beforehand, and not for looking until it says yes. {remedy}"
        )
    often = "The guarantee holds however often somebody looks"
    if beginning == "since":
        return f"Counted from {first_day} on. {often}, as long as that day stays and was chosen without its outcomes."
    return (
        f"Counted from the first order of the models now in service on ({first_day}). {often}; with a new model version "
        "counting begins anew, and so does the guarantee."
    )


def sentence(
    word: str, candidates: Sequence[Candidate], risk: float, error: float, *, is_fixed: bool = True
) -> str:
    """The verdict with its counts, for a supervisor."""
    present = next(one for one in candidates if one.is_present)
    told = f"above the present threshold {present.threshold:g}, {present.wrong} of {present.orders} orders were wrong"
    most = f"{100 * risk:g} %"
    if word == "not_justified":
        return f"Creating orders without asking is not justified: {told}, more than the stated {most}."
    if word == "not_enough_outcomes":
        return f"Not enough outcomes: {told}; {present.confirmed_needed} more, all of them right, would justify it."
    chosen = min((one for one in candidates if one.is_certified), key=lambda one: one.threshold)
    tail = "" if present.is_certified else f" Not so at the present {present.threshold:g}."
    tail += "" if is_fixed else " That holds for one look: the window moves."
    return (
        f"Creating orders without asking above risk {chosen.threshold:g} is justified: {chosen.wrong} of {chosen.orders} "
        f"were wrong, and with {100 * (1 - error):g} % confidence at most {most} of such orders are.{tail}"
    )


def population(serving: Mapping[str, str], first_day: date, last_day: date) -> str:
    """Whom the number speaks about."""
    models = ", ".join(f"{name} {version[:19]}".strip() for name, version in sorted(serving.items()))
    return (
        f"Orders that the models now in service ({models or 'none yet'}) raised and that ended from "
        f"{first_day} to {last_day}: those that were carried out and have a finding, and those that a person rejected, "
        "which count as wrong. Alarms under the band in which a person is asked raised no order and are not in it."
    )


def notes(groups: int, by: str, present: float, *, orders: int, above: int, silent: int) -> list[str]:
    """`orders` of all groups, `above` the present threshold, `silent`: nobody said what was found."""
    alike = "The guarantee holds for the orders to come as far as they are like these: machines, models, technicians,"
    told = [f"{alike} and how soon they come. One order's outcome must not decide another's."]
    if orders > 3 * above:
        told.append(
            f"Only {above} of {orders} orders rose above {present:g} before they ended: where technicians come soon, a "
            "pilot learns little about higher risks. Such orders can be left waiting until the risk has risen."
        )
    if silent:
        told.append(
            f"{silent} orders expired or ended without a finding and count for nothing; worst_case counts all of them "
            "as wrong."
        )
    if by != "all":
        told.append(f"The confidence holds for all {groups} groups together, so each needs more orders.")
    return told
