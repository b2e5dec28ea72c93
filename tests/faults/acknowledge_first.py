# SPDX-License-Identifier: Apache-2.0
"""The control: the forwarder, but it acknowledges to broker and producer before anything is on disk.

The rest is the product's own. A crash between the acknowledgement and the commit leaves an event nowhere.
"""

from patient_forwarder import be_patient

from linewatch_forwarder import __main__ as forwarder
from linewatch_forwarder.arrivals import arrival
from linewatch_forwarder.intake import Intake


class AcknowledgesFirst(Intake):
    """`run` in the wrong order."""

    async def run(self) -> None:
        while True:
            messages = await self._next_group()
            arrivals = [arrival(message) for message in messages]
            for message in messages:
                self._listener.acknowledge(message)
            await self._tell_producers(arrivals)
            for one in arrivals:
                await self._commit([one])
            self._stored()


if __name__ == "__main__":
    be_patient()
    forwarder.Intake = AcknowledgesFirst
    forwarder.main()
