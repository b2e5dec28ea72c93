# SPDX-License-Identifier: Apache-2.0
"""`python -m linewatch_console.users`: who may sign in at a console, in CONSOLE_USERS_FILE.

A password is asked for twice on a terminal, else read from the first line of the standard input. The console takes a
change within a second; who is removed, has another role or another password is signed out.
"""

import argparse
import getpass
import os
import secrets
import sys
import unicodedata
from pathlib import Path

from linewatch_console.people import ROLES, is_name
from linewatch_console.user_list import (
    HASHER,
    LONGEST_PASSWORD,
    SHORTEST_PASSWORD,
    User,
    UserListError,
    is_password,
    locked,
    read_users,
    write_users,
)  # fmt: skip

EXIT_NO = 1
EXIT_UNUSABLE = 2


class UsageError(Exception):
    """The command can't be done; the text says why."""


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    options = _arguments(arguments)
    try:
        if options.file is None:
            raise UsageError("which file? Give --file or set CONSOLE_USERS_FILE")
        verbs = {"add": _add, "remove": _remove, "list": _list, "check": _check, "init": _init}
        return verbs[options.verb](options.file, options)
    except (UsageError, UserListError) as error:
        print(f"users: {error}", file=sys.stderr)
    except OSError as error:
        print(f"users: {error.filename or options.file}: {error.strerror}", file=sys.stderr)
    return EXIT_UNUSABLE


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    named = os.environ.get("CONSOLE_USERS_FILE")
    parser = argparse.ArgumentParser(prog="python -m linewatch_console.users", description=__doc__)
    parser.add_argument(
        "--file", type=Path, default=Path(named) if named else None, help="default: CONSOLE_USERS_FILE"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add", help="adds a user, or gives one another role or password")
    add.add_argument("name")
    add.add_argument("--role", choices=ROLES, required=True)
    add.add_argument("--generate", action="store_true", help="makes a password and prints it")
    remove = verbs.add_parser("remove", help="removes a user and ends what it has open")
    remove.add_argument("name")
    verbs.add_parser("list", help="names and roles")
    check = verbs.add_parser(
        "check", help="whether the file can be used; with a name, whether a password is its own"
    )
    check.add_argument("name", nargs="?")
    init = verbs.add_parser(
        "init", help="makes the file with one user of each role; leaves one that is there alone"
    )
    init.add_argument(
        "--passwords",
        type=Path,
        required=True,
        help="where their passwords are written, for their owner only",
    )
    return parser.parse_args(arguments)


def _add(path: Path, options: argparse.Namespace) -> int:
    name = unicodedata.normalize("NFC", options.name)
    if not is_name(name):
        raise UsageError(f"{options.name!r}: a name has 1 to 80 visible characters and no blank at its ends")
    password = _new_password() if options.generate else _asked(twice=True)
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise UsageError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    user = User(name=name, role=options.role, password=HASHER.hash(password))
    with locked(path):
        users = read_users(path) if path.exists() else {}
        was = users.get(name)
        write_users(path, {**users, name: user})
    print(f"{'changed' if was else 'added'} {name}, {user.role}")
    if options.generate:
        print(f"password: {password}")
    return 0


def _remove(path: Path, options: argparse.Namespace) -> int:
    name = unicodedata.normalize("NFC", options.name)
    with locked(path):
        users = read_users(path)
        if users.pop(name, None) is None:
            raise UsageError(f"{path}: there is no {name!r}")
        write_users(path, users)
    print(f"removed {name}")
    return 0


def _list(path: Path, _options: argparse.Namespace) -> int:
    for user in read_users(path).values():
        print(f"{user.role:9} {user.name}")
    return 0


def _check(path: Path, options: argparse.Namespace) -> int:
    users = read_users(path)
    if options.name is None:
        print(
            f"{path}: {len(users)} users, {sum(user.role == 'admin' for user in users.values())} of them admin"
        )
        return 0
    is_right = is_password(users.get(unicodedata.normalize("NFC", options.name)), _asked(twice=False))
    print("that is the password" if is_right else "that is not the password, or there is no such user")
    return 0 if is_right else EXIT_NO


def _init(path: Path, options: argparse.Namespace) -> int:
    with locked(path):
        if path.exists():
            print(f"{path} is there")
            return 0
        passwords = {role: _new_password() for role in ROLES}
        # First the passwords: a list whose passwords nobody knows would keep everybody out.
        _write_private(
            options.passwords, "".join(f"{role} {password}\n" for role, password in passwords.items())
        )
        users: dict[str, User] = {
            role: User(name=role, role=role, password=HASHER.hash(passwords[role])) for role in ROLES
        }
        write_users(path, users)
    print(f"made {path}; the passwords are in {options.passwords}")
    return 0


def _asked(*, twice: bool) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("password: ")
    if twice and getpass.getpass("again: ") != password:
        raise UsageError("the two differ")
    return password


def _new_password() -> str:
    """16 letters and digits without look-alikes, in groups: 79 bits."""
    signs = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(signs) for _ in range(4)) for _ in range(4))


def _write_private(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
