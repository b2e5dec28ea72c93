# SPDX-License-Identifier: Apache-2.0
"""A console with rich, made-up TEST data, for whoever works on its pages: `.venv/bin/python services/console/tests/showcase.py`.

A real broker, a real console and the stand-in of the cloud's API, showing tests/browser/scene.py: orders and outcomes are
made up, frames and records are the committed sample's. `--users` asks to sign in (viewer, approver, admin; the password
is printed), `--still` lets the line stand still, for screenshots. Ends with Ctrl-C.
"""

import argparse
import itertools
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "browser"))  # the folder of this file is there by itself

import paho.mqtt.client as paho
import scene
from console_process import DEADLINE_S, Broker, CloudServer, begun, ended, environment_in, free_port, wait_for
from console_stand_in import StandInCloud

from linewatch_console.user_list import HASHER, User, write_users
from linewatch_runtime.mqtt_client import SessionClient

PASSWORD = "a-password-for-trying"
ROUND = 40
"""Parts until the line begins anew: its evidence files are written over."""

Publish = Callable[[str, bytes | dict[str, Any]], None]


def play_on(publish: Publish, evidence_dir: Path, stop: threading.Event) -> None:
    """The shift of the scene, then four parts a second until stopped."""
    scene.play(publish, evidence_dir)
    steady = sorted((scene.SAMPLE / "pv-el-cells" / "images").glob("1-steady/*.jpg"))
    for number in itertools.count():
        if stop.wait(0.5):
            return
        at = number % ROUND
        is_bad = at % 9 == 8
        frame = scene.cracked()[at % 4] if is_bad else steady[at % len(steady)]
        publish(scene.CAMERA_TOPIC, scene.frame_event(at + 1, frame, evidence_dir, 0.94 if is_bad else 0.03))
        wear = at / ROUND
        publish(
            scene.MACHINE_TOPIC, scene.window_event(at + 1, min(0.97, 0.2 + wear * 0.8), 125 * (1 - wear))
        )


def publisher(port: int) -> tuple[SessionClient, Publish]:
    client = SessionClient(paho.CallbackAPIVersion.VERSION2, "showcase", protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()

    def publish(topic: str, payload: bytes | dict[str, Any]) -> None:
        content = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        client.publish(topic, content, qos=1, retain=topic.endswith("/status")).wait_for_publish(DEADLINE_S)

    return client, publish


def users_in(folder: Path) -> Path:
    path, hashed = folder / "users.json", HASHER.hash(PASSWORD)
    write_users(
        path, {role: User(name=role, role=role, password=hashed) for role in ("viewer", "approver", "admin")}
    )
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--users", action="store_true", help="asks to sign in: viewer, approver, admin")
    parser.add_argument("--still", action="store_true", help="one shift, then the line stands still")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="showcase-") as name:
        folder = Path(name)
        broker, cloud = Broker(free_port(), folder / "broker"), CloudServer(StandInCloud(), free_port())
        stop, client, console = threading.Event(), None, None
        port = str(options.port or free_port())
        environment = environment_in(folder) | {
            "CONSOLE_PORT": port, "CONSOLE_MQTT_PORT": str(broker.port), "CONSOLE_STALE_AFTER_S": "600",
            "CONSOLE_CLOUD_API_URL": f"http://127.0.0.1:{cloud.port}", "CONSOLE_CLOUD_API_TOKEN_FILE": str(folder / "token"),
        }  # fmt: skip
        if options.users:
            environment["CONSOLE_USERS_FILE"] = str(users_in(folder))
        try:
            broker.start()
            cloud.start()
            scene.raise_orders(cloud.stand_in, folder / "evidence")
            console = begun(environment)
            wait_for("the broker", lambda: console.http.get("/healthz").json()["broker"] == "connected")
            client, publish = publisher(broker.port)
            play = scene.play if options.still else play_on
            more = () if options.still else (stop,)
            line = threading.Thread(target=play, args=(publish, folder / "evidence", *more), daemon=True)
            line.start()
            print(
                f"http://127.0.0.1:{port}/  {'password of each: ' + PASSWORD if options.users else ''}",
                flush=True,
            )
            console.process.wait()
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
            if console:
                ended(console)
            if client:
                client.close()
            cloud.stop()
            broker.stop()


if __name__ == "__main__":
    main()
