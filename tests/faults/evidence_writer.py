# SPDX-License-Identifier: Apache-2.0
"""A process that keeps evidence of parts as capture does until it is killed, and says `kept PATH DIGEST` once it is kept."""

import argparse
import asyncio
import os
import signal
from pathlib import Path

from linewatch.v1 import verdict_pb2
from linewatch_capture.evidence import EvidenceDirectory
from linewatch_capture.parts import JPEG_START, Frame, Judged, Part
from linewatch_runtime.events import new_event_id

FRAME_BYTES = 40_000
ROOM = 256 * 1024 * 1024


async def keep(root: Path, parts: int) -> None:
    """Keeps one frame after the other; 0: no end."""
    evidence = EvidenceDirectory(root, "line-1", "station-1", 1.0, ROOM)
    outcome = Judged(verdict_pb2.Verdict(result=verdict_pb2.Verdict.NG, label="crack", score=0.97))
    number = 0
    while not parts or number < parts:
        number += 1
        part = Part(f"part {number}", Frame(JPEG_START + os.urandom(FRAME_BYTES)), number)
        for one in await evidence.keep(new_event_id(), part, outcome):
            print("kept", one.path, one.digest, flush=True)
    print("done", flush=True)
    signal.pause()


def main() -> None:
    """Runs until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parts", type=int, default=0)
    parser.add_argument("--without-fsync", action="store_true", help="the control")
    options = parser.parse_args()
    if options.without_fsync:
        os.fsync = lambda _: None
    asyncio.run(keep(options.root, options.parts))


if __name__ == "__main__":
    main()
