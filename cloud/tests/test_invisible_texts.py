# SPDX-License-Identifier: Apache-2.0
"""A reason or a name that people can't see, or that shows another text than is stored, is refused by name."""

import json
import sys
import unicodedata

import pytest

from api.errors import BadRequestError
from api.request import Body, person

ESCAPED = pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\u200b", "U\\+200B \\(ZERO WIDTH SPACE\\)"),
        ("\ufeff", "U\\+FEFF"),
        ("\u2060", "U\\+2060 \\(WORD JOINER\\)"),
        ("approved\u202edesolc", "U\\+202E \\(RIGHT-TO-LEFT OVERRIDE\\)"),
        ("loose\u2066sensor", "U\\+2066"),
        ("a\U000e0041", "U\\+E0041 \\(TAG LATIN CAPITAL LETTER A\\)"),
        ("\u200d", "nothing that can be seen"),
        ("\u200c \u0301\ufe0f", "nothing that can be seen"),
        ("\u3164", "nothing that can be seen"),
        ("\u2800", "nothing that can be seen"),
        ("\u00a0\u2003", "is missing"),
    ],
    ids=ascii,
)


@ESCAPED
def test_what_nobody_can_read_is_no_reason_and_no_name(text: str, why: str) -> None:
    """A lone zero-width sign was a reason; an override turned what a reader saw."""
    with pytest.raises(BadRequestError, match=f"^reason: .*{why}"):
        Body({"reason": text}, frozenset({"reason"})).text("reason")
    with pytest.raises(BadRequestError, match=f"^X-Linewatch-User: .*{why}"):
        person("X-Linewatch-User", text)


@pytest.mark.parametrize(
    "text",
    ["Kompressor Süd, ± 0.3 °C", "می\u200cخواهم", "క్\u200cష", "👩\u200d🔧 ok", "e\u0301tanche\u0301ite\u0301", "軸受", "Ω", "…", "2nd try\n\tworn seal"],
    ids=ascii,
)  # fmt: skip
def test_what_people_write_is_taken_as_it_is(text: str) -> None:
    assert Body(json.loads(json.dumps({"reason": text})), frozenset({"reason"})).text("reason") == text


def test_no_format_character_but_the_two_joiners_is_taken() -> None:
    taken = []
    for letter in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(letter) == "Cf":
            try:
                Body({"reason": f"a{letter}b"}, frozenset({"reason"})).text("reason")
            except BadRequestError:
                continue
            taken.append(letter)
    assert taken == ["\u200c", "\u200d"]
