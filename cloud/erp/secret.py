# SPDX-License-Identifier: Apache-2.0
"""The ERP's secret in Secrets Manager, read anew when the ERP refuses it: that is how a rotation is survived.

Whoever rotates puts the new value in as AWSCURRENT, and the value before becomes AWSPREVIOUS. For a moment the ERP may
know only one of the two, whichever: so both are tried, the current one first.
"""

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from erp.port import ErpAwayError
from erp.transcript import Hidden

STAGES = ("AWSCURRENT", "AWSPREVIOUS")


class Secret:
    """One secret: a JSON object of text values, such as {"client_id": …, "client_secret": …}."""

    def __init__(self, secrets_manager: Any, secret_id: str, hidden: Hidden) -> None:
        self._secrets_manager = secrets_manager
        self._secret_id = secret_id
        self._hidden = hidden

    def read(self, stage: str = "AWSCURRENT") -> Mapping[str, str] | None:
        """The value at this stage, hidden from now on; None where there is no such version.

        Raises:
            ErpAwayError: Secrets Manager does not answer or the value is no JSON object. A secret being put right
                heals, and a wrong one must stay visible as parked orders, not as poison.
        """
        try:
            answer = self._secrets_manager.get_secret_value(SecretId=self._secret_id, VersionStage=stage)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "ResourceNotFoundException" and stage != "AWSCURRENT":
                return None
            raise ErpAwayError(f"the ERP's secret can't be read: {code}") from error
        except BotoCoreError as error:
            raise ErpAwayError(f"the ERP's secret can't be read: {type(error).__name__}") from error
        try:
            value = json.loads(answer["SecretString"])
        except (KeyError, ValueError):
            # Not "from error": that one carries the value.
            raise ErpAwayError("the ERP's secret is no JSON text") from None
        if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
            raise ErpAwayError("the ERP's secret is no JSON object of texts")
        for name, entry in value.items():
            if name not in {"client_id", "user"}:
                self._hidden.add(entry)
        return value


def field(value: Mapping[str, str], name: str) -> str:
    """One entry of the secret. Raises ErpAwayError, which names it."""
    try:
        return value[name]
    except KeyError:
        raise ErpAwayError(f"the ERP's secret has no {name!r}; it has {sorted(value)}") from None
