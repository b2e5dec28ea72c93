# SPDX-License-Identifier: Apache-2.0
"""The local list of users: name, role and an Argon2id hash of the password, in one JSON file.

The file is read again when it changes, so a removed user is out within a second. One that can't be read lets nobody new
in and leaves the list as it was last read; an empty list puts everybody out.
"""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from linewatch_console.people import Person, Role, is_name

LARGEST_FILE_BYTES = 1024 * 1024
MOST_USERS = 1000
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 256

# RFC 9106's second choice with half its memory: a container of 256 MB reckons one at a time (sign_in.py).
HASHER = PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)
MOST_MEMORY_KIB = 64 * 1024
MOST_PASSES = 10


class UserListError(Exception):
    """The list can't be used; the text names the file and what is wrong."""


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("a name has 1 to 80 visible characters and no blank at its ends")
    return text


def _hash(text: str) -> str:
    try:
        parameters = extract_parameters(text)
    except (InvalidHashError, ValueError) as error:
        raise ValueError(
            "this is no Argon2 hash; make one with `python -m linewatch_console.users add`"
        ) from error
    if (
        parameters.type is not Type.ID
        or parameters.memory_cost > MOST_MEMORY_KIB
        or parameters.time_cost > MOST_PASSES
    ):
        raise ValueError(
            f"an Argon2id hash of at most {MOST_MEMORY_KIB} KiB and {MOST_PASSES} passes is needed"
        )
    return text


class User(BaseModel):
    """One user. `password` is the hash."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_name)]
    role: Role
    password: Annotated[str, AfterValidator(_hash)]

    @property
    def person(self) -> Person:
        """Who this is."""
        return Person(self.name, self.role)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    users: Annotated[list[User], Field(max_length=MOST_USERS)] = []

    @model_validator(mode="after")
    def _names_differ(self) -> "_File":
        names = [user.name for user in self.users]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{sorted(twice)[0]!r} is there twice")
        return self


def read_users(path: Path) -> dict[str, User]:
    """The users by name. Raises UserListError."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise UserListError(f"{path}: {error.strerror}") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise UserListError(f"{path}: larger than {LARGEST_FILE_BYTES >> 20} MB")
    try:
        return {user.name: user for user in _File.model_validate_json(content).users}
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise UserListError(
            f"{path}: {place or 'content'}: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def write_users(path: Path, users: dict[str, User]) -> None:
    """Replaces the file, all or nothing, readable by its owner only. Raises OSError."""
    content = json.dumps({"users": [user.model_dump() for user in users.values()]}, indent=2) + "\n"
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # who edits as root leaves the file with whom it belongs to
            before = path.stat()
            os.chown(name, before.st_uid, before.st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps a second editor out."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_password(user: User | None, offered: str, like: User | None = None) -> bool:
    """Whether it is; costs the same where there is no such user. `like`: whose costs an unknown name has."""
    hashed = user.password if user else _nobody(_costs(like))
    try:
        HASHER.verify(hashed, offered)
    except Argon2Error:
        return False
    return user is not None


def _costs(like: User | None) -> tuple[int, int, int]:
    if like is None:
        return HASHER.time_cost, HASHER.memory_cost, HASHER.parallelism
    found = extract_parameters(like.password)
    return found.time_cost, found.memory_cost, found.parallelism


@cache
def _nobody(costs: tuple[int, int, int]) -> str:
    """A hash that nothing matches, of these costs."""
    passes, memory, lanes = costs
    hasher = PasswordHasher(time_cost=passes, memory_cost=memory, parallelism=lanes)
    return hasher.hash(os.urandom(32))


class UserList:
    """The file as it was last read well; `problem` says why it could not be read since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._users: dict[str, User] = {}
        self._seen: tuple[int, int, int] | None = None
        self.look()

    def look(self) -> bool:
        """Reads the file again if it changed, and tells whether anything is new."""
        try:
            state = self.path.stat()
        except OSError as error:
            changed = not self.problem
            self.problem, self._seen = f"{self.path}: {error.strerror}", None
            return changed
        now = (state.st_ino, state.st_mtime_ns, state.st_size)
        if now == self._seen:
            return False
        self._seen = now
        try:
            self._users, self.problem = read_users(self.path), ""
        except UserListError as error:
            self.problem = str(error)
        return True

    def get(self, name: str) -> User | None:
        """The user of that name."""
        return self._users.get(name)

    def any(self) -> User | None:
        """Some user, for what an unknown name has to cost."""
        return next(iter(self._users.values()), None)

    def __len__(self) -> int:
        return len(self._users)
