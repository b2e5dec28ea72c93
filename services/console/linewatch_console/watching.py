# SPDX-License-Identifier: Apache-2.0
"""Ends sessions that are over, and those of people who are no longer on the list as they were, within a second."""

import asyncio
import logging

from linewatch_console.answers import Console
from linewatch_console.sessions import Session

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


async def watch_sessions(console: Console) -> None:
    """Looks until cancelled."""
    sign_in = console.sign_in_by

    def stands(session: Session) -> bool:
        return sign_in.stands(session.how, session.person, session.stamp)

    while True:
        users = sign_in.users
        if users is not None and users.look():
            level = logging.ERROR if users.problem else logging.INFO
            log.log(level, "users_read", extra={"users": len(users), "reason": users.problem})
        for session in console.access.sessions.sweep(stands):
            log.info(
                "session_ended", extra={"by": session.person.name, "reason": "the list of users changed"}
            )
            await console.audit.note(
                "session_ended", session.person.name, {"why": "the list of users changed"}
            )
        await asyncio.sleep(LOOK_EVERY_S)
