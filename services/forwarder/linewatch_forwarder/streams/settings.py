# SPDX-License-Identifier: Apache-2.0
"""The settings of the durable streams."""

from pydantic import Field

from linewatch_runtime.records import WhenFull
from linewatch_runtime.settings import ServiceSettings


class StreamSettings(ServiceSettings):
    """What one line's stream may hold, and who loses when it is full."""

    stream_max_bytes: int = Field(default=10 * 1024 * 1024, ge=2 * 1024 * 1024)
    """Bytes that one stream may hold on disk; at least as many as one group commit of the largest events needs."""
    stream_max_age_s: float = Field(default=7 * 24 * 3600.0, gt=0)
    """Seconds that an event may wait for the cloud before it expires and is counted."""
    when_full: WhenFull = WhenFull.SHED_GOOD
    """What a full stream does: shed_good, reject or overwrite_oldest."""
    file_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Cap of the spool's file over all streams. Keep it well below the volume's free space."""
