# SPDX-License-Identifier: Apache-2.0
"""From a product's words to the port's. Pure."""

from collections.abc import Mapping

from erp.port import ErpRefusedError, Finding, State


def state_of(word: str, states: Mapping[str, State]) -> State:
    """The state that this word stands for, whatever its case.

    Raises:
        ErpRefusedError: nobody said what the word means. To guess would close an order, or keep it for ever.
    """
    folded = {known.casefold(): state for known, state in states.items()}
    try:
        return folded[word.casefold()]
    except KeyError:
        raise ErpRefusedError(
            f"the ERP's order has the status {word[:60]!r}, which nobody mapped; add it to `states` in ERP_SETTINGS"
        ) from None


def finding_of(code: str, findings: Mapping[str, Finding]) -> Finding:
    """What the code stands for; an unknown or empty one says nothing about the prediction."""
    folded = {known.casefold(): finding for known, finding in findings.items()}
    return folded.get(code.strip().casefold(), "unstated")
