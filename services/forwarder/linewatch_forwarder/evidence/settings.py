# SPDX-License-Identifier: Apache-2.0
"""The settings of the evidence."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from linewatch_forwarder.evidence.notes import state_dir_of
from linewatch_forwarder.uplinks.settings import UplinkSettings


class EvidenceSettings(UplinkSettings):
    """Where capture's evidence lies, where it goes, and how much of the line it may take."""

    evidence_dir: Path | None = None
    """Capture's evidence directory, only read; empty: none. What is uploaded and what open work orders hold is noted beside it, in <name>-state, which capture reads."""
    evidence_bucket: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$")
    """S3 bucket that evidence is uploaded to; empty: it stays on this device. Needs AWS credentials."""
    evidence_thing: str = Field(default="", pattern=r"^[A-Za-z0-9:_-]{0,128}$")
    """Whose evidence it is in the bucket, as the role's policy allows it: the thing that the credentials are for. Empty: the client id at IoT Core."""
    evidence_bytes_per_s: int = Field(default=256 * 1024, ge=16 * 1024)
    """Bytes per second that an upload takes at most. It pauses while events wait."""

    @model_validator(mode="after")
    def _evidence_is_whole(self) -> Self:
        if self.evidence_bucket and self.evidence_dir is None:
            raise ValueError(
                "FORWARDER_EVIDENCE_DIR must be set: FORWARDER_EVIDENCE_BUCKET takes what lies there"
            )
        if self.evidence_bucket:
            self.need_credentials("FORWARDER_EVIDENCE_BUCKET")
        return self

    @property
    def evidence_root(self) -> Path | None:
        """Capture's evidence directory, if this forwarder follows one.

        The image names the place. A container that an older release's compose file or recipe starts has nothing mounted
        there and a root that can only be read: it has no evidence, which is no reason to carry no events.
        """
        if self.evidence_dir is None or self.evidence_bucket or self.evidence_dir.exists():
            return self.evidence_dir
        return None if _is_read_only(state_dir_of(self.evidence_dir)) else self.evidence_dir

    @property
    def evidence_prefix(self) -> str:
        """What every key begins with."""
        return f"evidence/{self.evidence_thing or self.client_id}/"


def _is_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False
