# SPDX-License-Identifier: Apache-2.0
"""The order of semantic versions (semver.org, 11)."""

VersionKey = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


def version_key(version: str) -> VersionKey:
    """A key that sorts as semver says: a pre-release before its release, its numbers as numbers; build data is nothing."""
    plain = version.partition("+")[0]
    core, _, pre = plain.partition("-")
    numbers = tuple(int(part) for part in core.split(".") if part.isdigit())
    parts = tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in pre.split(".") if part
    )
    return numbers, not parts, parts
