# SPDX-License-Identifier: Apache-2.0
"""The device's MQTT broker as a child process: the embedded one (rumqttd from PyPI) or the system's mosquitto.

The guarantees of Linewatch do not rest on either: no broker setting is lossless. What both must do is MQTT 5 with
persistent sessions and more than 20 messages in flight, or a group commit of the forwarder would stall.
"""

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path

EMBEDDED, MOSQUITTO = "embedded", "mosquitto"

_RUMQTTD = """\
id = 0
[router]
id = 0
max_connections = 1010
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 10
[v5.1]
name = "device"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
  [v5.1.connections]
  connection_timeout_ms = 60000
  max_payload_size = 262144
  max_inflight_count = 100
  dynamic_filters = true
"""

_MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {state}/
autosave_interval 60
# As many unacknowledged messages as the forwarder groups into one commit, and no count limit on what waits for it;
# the byte limit guards this machine's memory. A dropped message is sent again by its producer.
max_inflight_messages 200
max_queued_messages 0
max_queued_bytes 67108864
log_dest stdout
log_type error
log_type warning
"""


def main(arguments: list[str] | None = None) -> None:
    """Writes the configuration and becomes the broker."""
    parser = argparse.ArgumentParser(prog="python -m linewatch_plant.broker", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--state-dir", type=Path, required=True, help="directory of its own")
    parser.add_argument("--kind", choices=[EMBEDDED, MOSQUITTO], default=EMBEDDED)
    options = parser.parse_args(arguments)
    options.state_dir.mkdir(parents=True, exist_ok=True)
    if options.kind == MOSQUITTO:
        _become_mosquitto(options.port, options.state_dir.resolve())
    else:
        _become_embedded(options.port, options.state_dir.resolve())


def _become_mosquitto(port: int, state_dir: Path) -> None:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        sys.exit(
            "BROKER=mosquitto: mosquitto is not installed; install it (Debian: mosquitto) or use BROKER=embedded"
        )
    configuration = state_dir / "mosquitto.conf"
    # mosquitto started by root would change to its own user, who can't write here.
    user = "user root\n" if os.geteuid() == 0 else ""
    configuration.write_text(user + _MOSQUITTO.format(port=port, state=state_dir))
    os.execv(program, [program, "-c", str(configuration)])


def _become_embedded(port: int, state_dir: Path) -> None:
    from iotcore.iotcore import IotCoreBroker

    # rumqttd traces each packet as an error; what goes wrong shows at its clients.
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    logging.getLogger("rumqttd").propagate = False
    configuration = state_dir / "rumqttd.toml"
    configuration.write_text(_RUMQTTD.format(port=port))
    IotCoreBroker(config_path=str(configuration)).run_forever()


if __name__ == "__main__":
    main()
