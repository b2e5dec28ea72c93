# SPDX-License-Identifier: Apache-2.0
"""Whom a deployment is for: the environment's thing group, or one thing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from linewatch_fleet.errors import BadInput, CommandFailed
from linewatch_fleet.greengrass import Greengrass

_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Target:
    """ARN, the same in words, and the things that belong to it."""

    arn: str
    words: str
    things: Sequence[str]


def target_of(cloud: Greengrass, thing: str | None) -> Target:
    """The target that a command line names. Raises BadInput, CommandFailed: there is no such thing or group."""
    environment = cloud.environment
    place = f"account {environment.account}, region {environment.region}"
    if thing is not None:
        if not _THING.fullmatch(thing):
            raise BadInput(f"--thing {thing!r}: a thing's name has letters, digits, :, _ and -, at most 128")
        if not cloud.thing_exists(thing):
            raise CommandFailed(
                f"there is no thing {thing!r} in {place}; when both are the ones you mean (fleet.yaml), make it with "
                f"`linewatch provision {environment.name}`"
            )
        return Target(cloud.target_arn(thing=thing), f"thing {thing}", [thing])
    things = cloud.things(environment.group)
    if things is None:
        raise CommandFailed(
            f"there is no thing group {environment.group} in {place}; when both are the ones you mean (fleet.yaml), make "
            f"it with `linewatch provision {environment.name}`"
        )
    return Target(cloud.target_arn(group=environment.group), f"thing group {environment.group}", things)
