# SPDX-License-Identifier: Apache-2.0
"""The forwarder, but it waits for a locked file for as long as a test holds it.

The product gives up after 10 s and refuses the events; on a busy machine what a test does meanwhile takes longer.
"""

import sqlite3
from typing import Any

from linewatch_forwarder import __main__ as forwarder

LONGER_THAN_A_TEST_S = 600.0
_connect = sqlite3.connect


def _patient(*arguments: Any, **more: Any) -> sqlite3.Connection:
    return _connect(*arguments, **{**more, "timeout": LONGER_THAN_A_TEST_S})


def be_patient() -> None:
    """From here on this process waits."""
    sqlite3.connect = _patient  # type: ignore[assignment]


if __name__ == "__main__":
    be_patient()
    forwarder.main()
