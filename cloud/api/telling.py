# SPDX-License-Identifier: Apache-2.0
"""An order's records in plain words, for whoever asks years later why the order exists. Pure.

The words are made when they are read; what is hashed is the entry's detail (linewatch/records.py). A kind of entry that
this release does not know is shown by its own name.
"""

from collections.abc import Callable, Mapping
from typing import Any

Detail = Mapping[str, Any]

STATUS_WORDS = {
    "awaiting_approval": "waits for a supervisor's approval",
    "creating": "is being placed in the ERP",
    "created": "is in the ERP",
    "parked": "is parked: the ERP did not take it, and it is tried again",
    "rejected": "was rejected",
    "merged": "was merged into another order",
    "closed": "is closed",
}

FINDING_WORDS = {
    "confirmed": "the fault was there",
    "other_fault": "another fault was there",
    "no_fault": "nothing was wrong",
    "unstated": "nobody said what was found",
}


def told(what: str, by: str, detail: Detail) -> str:
    """One sentence for one entry."""
    words = _WORDS.get(what)
    if words is None:
        known = ", ".join(f"{name} {value}" for name, value in detail.items() if isinstance(value, str | int))
        return _sentence(f"{what.replace('_', ' ')} by {by}", known)
    return words(by, detail)


def _opened(_by: str, detail: Detail) -> str:
    after = detail.get("why", "")
    # The usual reason is the sentence itself.
    after = "" if after == f"band {detail.get('band')}" else after
    status = STATUS_WORDS.get(detail.get("status", ""), detail.get("status", ""))
    return _sentence(f"The policy's band “{detail.get('band', '?')}” was crossed; the order {status}", after)


def _before_records(_by: str, detail: Detail) -> str:
    steps = len(detail.get("history", ()))
    return (
        f"The order is of a release without records: what was known of it then ({steps} steps, status "
        f"“{detail.get('status', '?')}”) was written down here and is covered from here on"
    )


def _approved(by: str, detail: Detail) -> str:
    return _sentence(f"{_person(by)} approved it", detail.get("reason", ""))


def _rejected(by: str, detail: Detail) -> str:
    return _sentence(f"{_person(by)} rejected it", detail.get("reason", ""))


def _merged(by: str, detail: Detail) -> str:
    return _sentence(
        f"{_person(by)} merged it into order {detail.get('into', '?')}", detail.get("reason", "")
    )


def _absorbed(by: str, detail: Detail) -> str:
    return _sentence(
        f"{_person(by)} merged order {detail.get('merged', '?')} into it", detail.get("reason", "")
    )


def _closed(by: str, detail: Detail) -> str:
    return f"{_person(by)} closed it{_found(detail)}"


def _corrected(by: str, detail: Detail) -> str:
    return f"{_person(by)} corrected the finding{_found(detail)}"


def _found(detail: Detail) -> str:
    finding = detail.get("finding", "")
    failure = detail.get("found_failure")
    where = {"erp": " in the ERP", "webhook": " in the ERP"}.get(detail.get("source", ""), "")
    found = f"{FINDING_WORDS.get(finding, finding)}{f' ({failure})' if failure else ''}"
    return _sentence(f"{where}: {found}", detail.get("note", ""))


def _escalated(_by: str, detail: Detail) -> str:
    risk = detail.get("risk")
    to = f"band “{detail.get('band', '?')}”, priority {detail.get('priority', '?')}"
    shown = f", risk {risk:.2f}" if isinstance(risk, int | float) else ""
    return _sentence(f"It got worse: {to}{shown}", detail.get("why", ""))


def _released(by: str, detail: Detail) -> str:
    return _sentence(f"{_person(by)} ended its wait", detail.get("reason", ""))


def _tried(_by: str, detail: Detail) -> str:
    return f"Try {detail.get('attempt', '?')} at the ERP failed: {detail.get('why', '?')}{_again(detail)}"


def _parked(_by: str, detail: Detail) -> str:
    return (
        f"Try {detail.get('attempt', '?')} at the ERP failed and the order was parked: {detail.get('why', '?')}"
        f"{_again(detail)}"
    )


def _created(_by: str, detail: Detail) -> str:
    failed = int(detail.get("attempts", 0))
    after = f" after {failed} failed {'try' if failed == 1 else 'tries'}" if failed else ""
    return f"The ERP has it as {detail.get('erp_id', '?')}{after}{_again(detail)}"


def _answered(_by: str, detail: Detail) -> str:
    return f"The ERP answered late with {detail.get('erp_id', '?')}: it is looked up whether it has the order twice"


def _again(detail: Detail) -> str:
    repeated = detail.get("repeated")
    return f" (before it {repeated['times']} times: {repeated['why']})" if repeated else ""


def _doubled(_by: str, detail: Detail) -> str:
    return (
        f"The ERP has it more than once: {detail.get('erp_id', '?')} counts, "
        f"{', '.join(detail.get('doubles', ()))} got a note that says so"
    )


def _taken_over(_by: str, detail: Detail) -> str:
    new, was = detail.get("erp_id", "?"), detail.get("was", "?")
    return f"The ERP's order with this reference is {new}, not {was}, which was recorded: from here on {new} counts"


_WORDS: Mapping[str, Callable[[str, Detail], str]] = {
    "opened": _opened,
    "before_records": _before_records,
    "approved": _approved,
    "rejected": _rejected,
    "merged": _merged,
    "absorbed": _absorbed,
    "closed": _closed,
    "corrected": _corrected,
    "escalated": _escalated,
    "released": _released,
    "asked": lambda _by, detail: _sentence("A supervisor is asked", detail.get("reason", "")),
    "tried": _tried,
    "parked": _parked,
    "created": _created,
    "answered": _answered,
    "doubled": _doubled,
    "taken_over": _taken_over,
    "replayed": lambda by, detail: _sentence(f"{_person(by)} had it tried again", detail.get("reason", "")),
    "note": lambda _by, detail: f"The ERP's order is to be told: {detail.get('text', '')}",
    "note_told": lambda _by, detail: f"The ERP's order was told (note {detail.get('key', '?')})",
    "note_refused": lambda _by, detail: (
        f"The ERP did not take the note {detail.get('key', '?')}: {detail.get('why', '')}"
    ),
    "full": lambda _by, detail: str(detail.get("text", "From here on repetitions are only counted")),
}


def _person(by: str) -> str:
    return {"policy": "The policy", "erp": "The ERP", "linewatch": "Linewatch"}.get(by, by)


def _sentence(what: str, after: str) -> str:
    return f"{what}: {after}" if after else what
