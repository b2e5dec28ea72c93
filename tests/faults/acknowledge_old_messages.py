# SPDX-License-Identifier: Apache-2.0
"""The control: the forwarder, but it acknowledges a message of an earlier session to the session that is there now.

The rest is the product's own. The broker takes it for the new message that has the same packet id, and forgets that.
"""

from patient_forwarder import be_patient

from linewatch_forwarder import __main__ as forwarder
from linewatch_runtime.mqtt import Connection, Message


def acknowledge(connection: Connection, message: Message) -> None:
    """In place of the one that looks at the session."""
    if connection._client is not None and message.qos > 0:
        connection._client.ack(message.packet_id, message.qos)


if __name__ == "__main__":
    be_patient()
    Connection.acknowledge = acknowledge  # type: ignore[method-assign]
    forwarder.main()
