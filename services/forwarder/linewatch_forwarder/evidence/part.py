# SPDX-License-Identifier: Apache-2.0
"""The evidence's part of the forwarder, put together from the settings."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from linewatch_forwarder.delivery import Delivery
from linewatch_forwarder.evidence.files import WaitingFiles
from linewatch_forwarder.evidence.notes import EvidenceNotes, state_dir_of
from linewatch_forwarder.evidence.pins import ShadowPins
from linewatch_forwarder.evidence.s3_upload import Pace, S3Upload
from linewatch_forwarder.evidence.settings import EvidenceSettings
from linewatch_forwarder.evidence.uploads import EvidenceUploads
from linewatch_forwarder.uplinks.credentials import aws_session
from linewatch_forwarder.uplinks.port import Uplink
from linewatch_runtime.lifecycle import wait_until
from linewatch_runtime.mqtt import Connection

log = logging.getLogger(__name__)

AGAIN_S = 60.0
BEHIND_S = 0.5
"""Events that have waited so long come before evidence. What comes in steadily is sent within less."""


class EvidencePart:
    """Follows the open work orders, and uploads. With no evidence directory it does nothing."""

    def __init__(
        self, settings: EvidenceSettings, uplink: Uplink, delivery: Delivery, connection: Connection | None
    ) -> None:
        """`connection`: the uplink's, where it hears the device shadow. Raises OSError when the directory can't be used."""
        self._pins: ShadowPins | None = None
        self._uploads: EvidenceUploads | None = None
        root = settings.evidence_root
        if root is None:
            if settings.evidence_dir is not None:
                log.warning("evidence_not_mounted", extra={"path": str(settings.evidence_dir)})
            return
        notes = EvidenceNotes(state_dir_of(root))
        if connection is not None:
            self._pins = ShadowPins(connection, settings.client_id, notes)
        if settings.evidence_bucket:
            pace = Pace(settings.evidence_bytes_per_s)
            record = settings.state_dir / "evidence-upload.json"
            upload = S3Upload(
                aws_session(settings), settings.evidence_bucket, settings.evidence_prefix, record, pace
            )
            files = WaitingFiles(root, notes)
            self._uploads = EvidenceUploads(files, notes, upload, pace, why_wait(uplink, delivery))

    async def run(self, stop: asyncio.Event) -> None:
        """Until it is cancelled; uploads end with `stop`."""
        async with asyncio.TaskGroup() as tasks:
            if pins := self._pins:
                tasks.create_task(keep_going(pins.run, stop), name="pins")
            if uploads := self._uploads:
                tasks.create_task(keep_going(lambda: uploads.run(stop), stop), name="evidence uploads")

    def told(self) -> dict[str, object]:
        """For the status topic; empty where there is no upload."""
        return self._uploads.told() if self._uploads else {}


async def keep_going(run: Callable[[], Coroutine[None, None, None]], stop: asyncio.Event) -> None:
    """Runs it again after a fault of our own: evidence never takes the process, and with it the events, along."""
    while not stop.is_set():
        try:
            await run()
        except Exception:
            log.exception("evidence_fault")
        else:
            return
        await wait_until(stop, AGAIN_S)


def why_wait(uplink: Uplink, delivery: Delivery) -> Callable[[], str]:
    """Says why evidence has to wait now: events come first, and a way that is bad for them is not burdened."""

    def why() -> str:
        if not uplink.is_connected:
            return "the uplink is away"
        if delivery.trouble:
            return "the cloud does not take every event"
        return "events are waiting" if delivery.behind_s > BEHIND_S else ""

    return why
