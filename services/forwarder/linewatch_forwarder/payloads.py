# SPDX-License-Identifier: Apache-2.0
"""What may travel to the cloud as JSON: what every reader there takes, not only Python's.

IoT Core acknowledges any bytes, and its rule then drops what it can't read: with one such event in a batch, the batch.
"""

import json

DEEPEST = 32
"""Levels of a payload; our own events have fewer than ten. A reader that recurses gives up at some depth of its own."""


def json_object(payload: bytes) -> dict[str, object]:
    """The object that the payload is.

    Raises:
        ValueError: no UTF-8, no JSON (NaN and Infinity are none), no object, or deeper than DEEPEST.
    """
    try:
        found = json.loads(payload.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:  # its own text repeats the whole payload
        raise ValueError(f"no UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004
    level: list[object] = [found]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return found
    raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"it has more than {DEEPEST} levels"


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _inside(value: object) -> list[object]:
    """What lies one level deeper: the lists and objects in it."""
    if isinstance(value, dict):
        return [one for one in value.values() if isinstance(one, dict | list)]
    return [one for one in value if isinstance(one, dict | list)] if isinstance(value, list) else []
