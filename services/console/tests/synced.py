# SPDX-License-Identifier: Apache-2.0
"""A console whose audit log lies on a disk that can fail and lose its power: `python synced.py`, DISK names its folder.

Between the console and the system call `fsync`: what was written and not fsynced would be gone after a power cut, so
DISK/durable keeps of each file of the audit log what was fsynced last. While DISK/fails exists every fsync of the log
fails with EIO, as a broken disk's does; what it was to keep is not kept.
"""

import errno
import os
import runpy
import shutil
from pathlib import Path

DISK = Path(os.environ["DISK"])
system_fsync = os.fsync


def fsync(handle: int) -> None:
    path = Path(f"/proc/self/fd/{handle}").readlink()
    if not path.name.startswith("audit-"):
        system_fsync(handle)
        return
    if (DISK / "fails").exists():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    system_fsync(handle)
    kept = DISK / "durable" / path.name
    shutil.copyfile(path, kept.with_suffix(".new"))
    kept.with_suffix(".new").replace(kept)


if __name__ == "__main__":
    (DISK / "durable").mkdir(parents=True)
    os.fsync = fsync
    runpy.run_module("linewatch_console", run_name="__main__", alter_sys=True)
