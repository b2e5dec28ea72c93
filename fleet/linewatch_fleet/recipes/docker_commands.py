# SPDX-License-Identifier: Apache-2.0
"""The `docker run` commands of a script, written one way: whichever of its names was used, without quotes, values put in.

It reads what people write, not what a shell could be made to do: a value that the script computes stays a variable.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_RUN = re.compile(
    r"\bdocker\s+(?:-[^\s;|&]+\s+)*(?:container\s+)?(?:run|create)\b"
    r"((?:[^\n;|&\"']|\"[^\"]*\"|'[^']*'|&(?!&))*)"
)
_QUOTED = re.compile(r"\"([^\"\s]*)\"|'([^'\s]*)'")
_ASSIGNED = re.compile(r"(?:^|[;\n])\s*([A-Za-z_]\w*)=([^\s;|&()$`]+)")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_PLAIN_VALUE = re.compile(r"[^\s{}$\"']+")
_SHORT = {"-p": "--publish", "-v": "--volume", "-u": "--user"}


def unquoted(text: str) -> str:
    """Without quotes around what has no blanks: `"host"` is `host`."""
    return _QUOTED.sub(lambda found: found[1] or found[2] or "", text)


def docker_runs(script: str, setenv: Mapping[str, Any]) -> list[str]:
    """Each as `docker run …`, to the end of the command; what the script collects with `set --` stands where it says "$@"."""
    values = {**setenv, **dict(_ASSIGNED.findall(unquoted(script)))}
    collected = " ".join(re.findall(r"\bset -- ([^\n;]*)", script))
    return [
        _plain(f"docker run{arguments} {collected if '$@' in arguments else ''}", values)
        for arguments in _RUN.findall(script)
    ]


def _plain(command: str, values: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        known = values.get(found[1] or found[2])
        return known if isinstance(known, str) and _PLAIN_VALUE.fullmatch(known) else found[0]

    return re.sub(r"[ \t]+", " ", _VARIABLE.sub(value, unquoted(command))).rstrip()


def options(run: str, *names: str) -> Iterator[str]:
    """The values of options, in whichever of the ways they may be written: `-v X`, `-vX`, `--volume=X`."""
    words = run.split(" ")
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            if name in names:
                yield value if equals else following
        elif (short := re.match(r"-[dit]*([pvu])=?(.*)", word)) and _SHORT[f"-{short[1]}"] in names:
            yield short[2] or following
