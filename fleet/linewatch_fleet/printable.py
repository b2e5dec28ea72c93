# SPDX-License-Identifier: Apache-2.0
"""Text of others as a terminal may show it: no escape sequences, nothing that turns the order of signs or hides one."""

import unicodedata
from collections.abc import Callable

LOST = "\N{REPLACEMENT CHARACTER}"


def on_a_line(text: str) -> str:
    """One line: breaks and spaces of every kind become a space, what a terminal would obey or not show becomes LOST.

    A cell or a message with a line break could otherwise look like two, the second as its writer likes.
    """
    return _replaced(text, lambda sign: " " if sign in "\t\n\r" or _is_blank(sign) else LOST)


def on_lines(text: str) -> str:
    """The same for a message that is meant to have several lines."""
    return "\n".join(on_a_line(line) for line in text.split("\n"))


def in_json(text: str) -> str:
    """A JSON document whose strings have such signs escaped: another spelling of the same document."""
    return _replaced(text, lambda sign: sign if sign == "\n" else _escaped(sign))


def _replaced(text: str, by: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else by(sign) for sign in text)


def _is_blank(sign: str) -> bool:
    return unicodedata.category(sign) in ("Zs", "Zl", "Zp")


def _escaped(sign: str) -> str:
    # JSON names units of UTF-16. A lone half, which no encoder takes, is one.
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
