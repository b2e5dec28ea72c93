# SPDX-License-Identifier: Apache-2.0
"""Who somebody is to this console: a name and a role. Each role may do what the ones before it may."""

import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["viewer", "approver", "admin"]

ROLES: tuple[Role, ...] = get_args(Role)
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Person:
    """A name as decisions are recorded under it, and what its owner may do."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this person may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


def is_name(text: str) -> bool:
    """Whether `text` can be a name: 1 to 80 characters, none of them invisible, no blank at an end."""
    return (
        0 < len(text) <= LONGEST_NAME
        and text == text.strip()
        and text.isprintable()
        and unicodedata.normalize("NFC", text) == text
    )
