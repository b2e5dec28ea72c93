# SPDX-License-Identifier: Apache-2.0
"""A device whose way to the cloud is not set up yet: what it judges waits on its disk, and it says so."""

import asyncio
from collections.abc import Sequence

from linewatch_forwarder.uplinks.port import Outcome
from linewatch_runtime.records import Record


class NoUplink:
    """Never ready."""

    trouble = "no uplink is set up: events wait on this device (FORWARDER_UPLINK=none)"
    is_connected = False
    session = 0
    resend_window_s = 0.0
    held: frozenset[str] = frozenset()

    async def run(self) -> None:
        """For as long as the service runs."""
        await asyncio.Event().wait()

    async def ready(self) -> None:
        """Never returns."""
        await asyncio.Event().wait()

    async def send(self, records: Sequence[Record]) -> Outcome:  # noqa: ARG002 - nothing is ever sent
        """Accepts nothing."""
        return Outcome(trouble=self.trouble)
