# SPDX-License-Identifier: Apache-2.0
"""One release's writer: does the commands of stdin on a spool, says "done" after each, and never closes the file.

python release_child.py FOLDER SPOOL      FOLDER: of a package `linewatch_runtime` that holds the release's spool
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from linewatch_runtime.spool import Record, Spool, StreamLimit, WhenFull

spool = Spool(Path(sys.argv[2]), StreamLimit(60_000, when_full=WhenFull.SHED_GOOD))
for line in sys.stdin:
    name, *arguments = json.loads(line)
    if name == "append":
        records = [Record(*one[:3], one[3].encode(), one[4]) for one in arguments[0]]
        spool.append(records, {"judged": len(records)}, [("folder", one[0]) for one in arguments[0]])
    elif name == "settle":
        spool.settle(arguments[0])
    elif name == "bury":
        one = arguments[0]
        spool.bury(Record(*one[:3], one[3].encode(), one[4]), "no good")
    (clock,) = spool._db.execute(
        "SELECT coalesce(max(value), 0) FROM numbers WHERE name = 'clock_ms'"
    ).fetchone()
    print(json.dumps({"epoch": spool.next_epoch(), "clock": clock}), flush=True)
