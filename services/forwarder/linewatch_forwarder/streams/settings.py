# SPDX-License-Identifier: Apache-2.0
"""The settings of the durable streams."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from linewatch_runtime.records import WhenFull
from linewatch_runtime.settings import Port, ServiceSettings

FILES = {"embedded": "forwarder.db", "stream_manager": "stream-manager.db"}
"""What the streams of each kind keep in the state directory."""


class StreamSettings(ServiceSettings):
    """Where the streams are, what one line's may hold, and who loses when it is full."""

    streams: Literal["embedded", "stream_manager"] = "embedded"
    """embedded: one file of this service. stream_manager: AWS IoT Greengrass Stream Manager; see below for what is weaker."""
    stream_max_bytes: int = Field(default=10 * 1024 * 1024, ge=2 * 1024 * 1024)
    """Bytes that one stream may hold on disk; at least as many as one group commit of the largest events needs."""
    stream_max_age_s: float = Field(default=7 * 24 * 3600.0, gt=0)
    """Seconds that an event may wait for the cloud before it expires and is counted."""
    when_full: WhenFull = WhenFull.SHED_GOOD
    """What a full stream does: shed_good, reject or overwrite_oldest."""
    file_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Cap of the spool's file over all streams. Keep it well below the volume's free space."""
    stream_manager_host: str = "127.0.0.1"
    """Address of Stream Manager, which listens on the host's loopback only."""
    stream_manager_port: Port = 8088
    """Its port."""
    stream_manager_token_file: Path | None = None
    """File with a component's token; empty: AWS_CONTAINER_AUTHORIZATION_TOKEN or SVCUID, as the nucleus sets them."""
    stream_segment_bytes: int = Field(default=1024 * 1024, ge=256 * 1024)
    """Bytes that Stream Manager frees at once. A quarter of the stream at most; two segments of it take no alarms."""

    @model_validator(mode="after")
    def _segments_fit(self) -> "StreamSettings":
        if self.streams == "stream_manager" and self.stream_max_bytes < 4 * self.stream_segment_bytes:
            raise ValueError(
                f"FORWARDER_STREAM_MAX_BYTES: {self.stream_max_bytes} holds fewer than 4 segments of"
                f" FORWARDER_STREAM_SEGMENT_BYTES ({self.stream_segment_bytes}); Stream Manager frees whole ones. Raise the first"
                " or lower the second"
            )
        return self
