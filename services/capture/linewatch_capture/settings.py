# SPDX-License-Identifier: Apache-2.0
"""Every environment variable of capture. README.md has the same table; a test holds the two equal."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from linewatch_capture.mask import mask_of
from linewatch_runtime.events import DEVICE_LINE
from linewatch_runtime.settings import Name, ServiceSettings, service_settings

PREFIX = "CAPTURE_"

ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+(:[A-Za-z0-9.+-]+)?$")]


class Settings(ServiceSettings):
    """One station: where its parts come from, which model judges them, what is kept."""

    model_config = service_settings(PREFIX)

    line: Name
    """Line in every topic; "device" is reserved for what belongs to no line."""
    station: Name
    """Station in every topic."""
    source: Literal["folder", "watch", "records"] = "folder"
    """folder plays a directory of JPEG and PNG files, watch follows a directory that a camera writes to, records plays a CSV of sensor records."""
    path: Path
    """The directory, or the CSV file (plain or .gz), that the source reads."""
    rate: float = Field(default=2.0, gt=0, le=1000)
    """Parts per second that folder and records play."""
    live: bool = False
    """Play by the clock whether or not inference keeps up, as a camera would; otherwise folder and records wait for it. watch is always live."""
    parts: int = Field(default=0, ge=0)
    """End after so many parts of this path, restarts included; 0: no limit. For folder and records."""
    loop: bool = False
    """Start again at the end of folder or records."""
    model: ModelName
    """Name of the model package that judges, or name:version to pin a version."""
    inference_address: str = "127.0.0.1:8081"
    """Host and port of the inference service, gRPC."""
    inspect_deadline_s: float = Field(default=5.0, gt=0, le=300)
    """Seconds that inference has for one part."""
    window_rows: int = Field(default=0, ge=0, le=10_000)
    """Records in a sensor window; 0: ask the model. For records only."""
    cycle_period_s: float = Field(default=0.0, ge=0)
    """Seconds per operating cycle of the machine; 0: the rolling mean of the real pace. For records only."""
    spool_max_bytes: int = Field(default=64 * 1024 * 1024, ge=16 * 1024)
    """Bytes of events that may wait on disk for the forwarder; at this limit capture stops judging until there is room."""
    mask: str | None = None
    """Areas of every picture that are blackened before inference, evidence and console see it: left,top,width,height in fractions of the picture, up to 16 of them with / between; empty: none. For folder and watch."""
    evidence_dir: Path | None = None
    """Directory for frames, heat maps and windows that people look at; empty: none is kept. Beside it lies <name>-state, where the forwarder notes what is uploaded and what open work orders hold."""
    evidence_ok_share: float = Field(default=0.02, ge=0, le=1)
    """Share of good parts whose evidence is kept, 0 to 1; NG and REVIEW are always kept."""
    evidence_max_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of evidence of this line, all its stations together; at the limit good parts go first, then certain defects, then uncertain parts, and what an open work order holds never."""

    @field_validator("line")
    @classmethod
    def _line_is_no_device(cls, line: str) -> str:
        if line == DEVICE_LINE:
            raise ValueError('"device" is reserved for events that belong to no line; choose another name')
        return line

    @field_validator("inference_address")
    @classmethod
    def _has_host_and_port(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("write it as host:port, such as 127.0.0.1:8081")
        return address

    @field_validator("mask")
    @classmethod
    def _mask_can_be_read(cls, mask: str | None) -> str | None:
        mask_of(mask or "")
        return mask

    @model_validator(mode="after")
    def _only_pictures_have_a_mask(self) -> Self:
        if self.source == "records" and self.mask:
            raise ValueError(
                f"{PREFIX}MASK: records have no picture; unset it, or set another {PREFIX}SOURCE"
            )
        return self

    @model_validator(mode="after")
    def _watch_has_no_end(self) -> Self:
        if self.source == "watch" and (self.loop or self.parts):
            name = "LOOP" if self.loop else "PARTS"
            raise ValueError(
                f"{PREFIX}{name}: a watched directory has no end; unset it, or set {PREFIX}SOURCE=folder"
            )
        return self

    @property
    def model_name(self) -> str:
        """The model's name without a version."""
        return self.model.partition(":")[0]

    @property
    def model_version(self) -> str:
        """The pinned version; empty: the active one."""
        return self.model.partition(":")[2]
