# SPDX-License-Identifier: Apache-2.0
"""`python -m linewatch_console.audit verify` and `… list`: read a console's audit log, also while it runs.

verify ends with 0 when every entry follows from the one before it, 1 when one was changed, and names it; 2 when there is
no log to read.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from linewatch_console.audit.log import shown
from linewatch_console.audit.segments import newest, paths_of, verify

EXIT_FAULT = 1
EXIT_NO_LOG = 2


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m linewatch_console.audit", description=__doc__)
    parser.add_argument("verb", choices=["verify", "list"])
    parser.add_argument(
        "--state-dir", type=Path, default=Path(os.environ.get("CONSOLE_STATE_DIR") or "/var/lib/linewatch"),
        help="the console's CONSOLE_STATE_DIR",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=50, help="list: so many entries, the newest")
    parser.add_argument(
        "--head", default="", help="verify: the digest of the newest entry that you wrote down elsewhere"
    )
    parser.add_argument("--json", action="store_true", help="list: as JSON lines")
    options = parser.parse_args()
    directory = options.state_dir / "audit"
    try:
        if not paths_of(directory):
            print(
                f"{directory}: there is no audit log; --state-dir names the console's CONSOLE_STATE_DIR",
                file=sys.stderr,
            )
            return EXIT_NO_LOG
        return _list(directory, options) if options.verb == "list" else _verify(directory, options.head)
    except OSError as error:
        print(f"{directory}: {error.strerror or error}", file=sys.stderr)
        return EXIT_NO_LOG


def _verify(directory: Path, head: str) -> int:
    verdict = verify(directory)
    fault = verdict.fault
    if not fault and head and not any(entry.digest == head for entry in newest(directory, verdict.entries)):
        fault = f"no entry has the digest {head}: the end was cut off, or the log was written anew"
    if fault:
        print(f"NOT VERIFIED: {fault}")
        return EXIT_FAULT
    print(f"verified: {verdict.entries} entries in {verdict.segments} files, head {verdict.head}")
    return 0


def _list(directory: Path, options: argparse.Namespace) -> int:
    for entry in reversed(newest(directory, max(1, options.limit))):
        if options.json:
            print(json.dumps(shown(entry), ensure_ascii=False))
        else:
            print(f"{entry.at}  {entry.what:15} {entry.by:20} {entry.detail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
