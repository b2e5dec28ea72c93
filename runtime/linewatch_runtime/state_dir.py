# SPDX-License-Identifier: Apache-2.0
"""The directory of a service's durable state, held by one process at a time."""

import fcntl
import sys
from pathlib import Path
from typing import TextIO

from linewatch_runtime.settings import EXIT_BAD_SETTINGS


def lock_state_dir(state_dir: Path, service: str, variable: str) -> TextIO:
    """Makes the directory and keeps a second process of the service away from its spool. Close it at the very end.

    A directory that can't be used, or that another process holds, ends the process with 2; `variable` is the
    setting that the message names. The kernel lets the lock go with the process, however it ends.
    """
    path = state_dir / f"{service}.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        problem = f"another {service} holds {path}; stop it, or give each its own directory"
    except OSError as error:
        problem = f"{error}; name a directory that this user may write to"
    else:
        return lock
    print(f"{variable}: {problem}", file=sys.stderr)
    sys.exit(EXIT_BAD_SETTINGS)
