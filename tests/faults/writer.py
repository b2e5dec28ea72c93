# SPDX-License-Identifier: Apache-2.0
"""A process that appends to the spool given and settles behind itself until it is killed, and says what was acknowledged.

Lines on stdout, each said after the call returned but for `settling`: `appended ID...`, `settling ID...`,
`settled ID...`. No id is used twice.
"""

import argparse
import signal
from pathlib import Path

from linewatch_runtime.spool import Record, Spool, StreamLimit

LINES = ("predictions-line-1", "predictions-line-2")
LARGEST_GROUP = 12
HELD = 1000
"""Events that stay in the spool; above it the oldest are settled, so that pages are freed and used again."""


def main() -> None:
    """Runs until it is killed, or for --commits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--commits", type=int, default=0, help="0: no end")
    parser.add_argument("--synchronous", default="", help="the control's PRAGMA synchronous")
    options = parser.parse_args()
    spool = Spool(options.spool, StreamLimit(512 * 1024 * 1024), 512 * 1024 * 1024)
    if options.synchronous:
        spool._db.execute(f"PRAGMA synchronous = {options.synchronous}")
    epoch = spool.next_epoch()
    held = sum(one.events for one in spool.streams())
    print("opened", flush=True)
    number = commits = 0
    while not options.commits or commits < options.commits:
        ids = [f"{epoch}-{number + offset}" for offset in range(1 + commits % LARGEST_GROUP)]
        spool.append([_record(one, commits) for one in ids], {"judged": len(ids)})
        print("appended", *ids, flush=True)
        number, held, commits = number + len(ids), held + len(ids), commits + 1
        if held > HELD and commits % 5 == 0:
            done = [one.record.event_id for one in spool.oldest(40)]
            print("settling", *done, flush=True)
            spool.settle(done)
            print("settled", *done, flush=True)
            held -= len(done)
    print("done", flush=True)
    signal.pause()


def _record(event_id: str, commit: int) -> Record:
    payload = event_id.encode().ljust(300 + 97 * (commit % 11), b".")
    return Record(event_id, LINES[commit % 2], "topic", payload, alarm=commit % 9 == 0)


if __name__ == "__main__":
    main()
