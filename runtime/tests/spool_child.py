# SPDX-License-Identifier: Apache-2.0
"""Appends to the spool given until it is killed, and says on stdout what was acknowledged."""

import sys
from pathlib import Path

from linewatch_runtime.spool import Record, Spool, StreamLimit

spool = Spool(Path(sys.argv[1]), StreamLimit(100 * 1024 * 1024))
epoch = spool.next_epoch()
print("epoch", epoch, flush=True)
number = 0
while True:
    ids = [f"{epoch}-{number + offset}" for offset in range(1 + number % 7)]
    number += len(ids)
    spool.append([Record(one, "line-1", "topic", b"x" * 300) for one in ids], {"judged": len(ids)})
    print("appended", *ids, flush=True)
