# SPDX-License-Identifier: Apache-2.0
"""How teardown tells what provision made: a tag on what can be tagged, attributes on things. Nothing else is touched."""

from pathlib import Path
from typing import Final

from botocore.exceptions import ClientError

ROOT: Final = Path(__file__).resolve().parents[3]

ENVIRONMENT: Final = "linewatch:environment"
"""Tag, and attribute of a thing: the environment that it belongs to."""
MADE_BY: Final = "linewatch:provisioned-by"
CERTIFICATES: Final = "linewatch:certificates"
"""Attribute of a thing: ids of its certificates, the present one first. IoT takes no tags on things or certificates."""
LINE: Final = "linewatch:line"
"""Attribute of a thing: the line it stands at. The third; IoT allows no fourth to a thing without a type."""


def tags(environment: str) -> list[dict[str, str]]:
    """The tags of all that provision makes for an environment."""
    return [
        {"Key": ENVIRONMENT, "Value": environment},
        {"Key": MADE_BY, "Value": "linewatch-provision"},
    ]


def is_ours(found: list[dict[str, str]], environment: str) -> bool:
    """Whether a tag list says that provision made its bearer for this environment."""
    return all(tag in found for tag in tags(environment))


def code(error: ClientError) -> str:
    """AWS's name of a refusal."""
    return str(error.response.get("Error", {}).get("Code", ""))
