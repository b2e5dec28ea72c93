# SPDX-License-Identifier: Apache-2.0
"""boto3 clients of one environment, and AWS's refusals as messages that name the remedy.

Endpoints are boto3's own business (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_ECR, ...): nothing here knows of a stand-in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from linewatch_fleet.config import Environment
from linewatch_fleet.errors import CommandFailed

_CONFIG = Config(connect_timeout=10, read_timeout=60, retries={"mode": "adaptive", "max_attempts": 6})
READING = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 5})
"""For small answers: who reads a table is told within about a minute that nobody answers, 5 times 10 s and the pauses."""


class Account:
    """One environment's AWS account and region."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        with explained():
            self._session = boto3.Session(profile_name=environment.profile, region_name=environment.region)

    def client(self, service: str) -> Any:
        """A client for `service`, such as "ecr"."""
        return self._made(service, _CONFIG)

    def reader(self, service: str) -> Any:
        """A client for calls with small answers, which gives up soon where the network is away."""
        return self._made(service, READING)

    def _made(self, service: str, config: Config) -> Any:
        with explained():
            return self._session.client(service, config=config)

    def tables(self) -> Any:
        """A client of DynamoDB that takes and gives Python's types, as cloud/ has it."""
        with explained():
            return self._session.resource("dynamodb", config=READING).meta.client

    def check(self) -> None:
        """Refuses to act in another account than the environment names."""
        with explained():
            found = self.reader("sts").get_caller_identity()["Account"]
        if found != self.environment.account:
            raise CommandFailed(
                f"these credentials belong to account {found}, and environment {self.environment.name!r} is "
                f"account {self.environment.account}; set AWS_PROFILE, or `profile` in fleet.yaml"
            )


@contextmanager
def explained() -> Iterator[None]:
    """Turns botocore's exceptions into messages of one line."""
    try:
        yield
    except ClientError as error:
        told = error.response.get("Error", {})
        code, message = told.get("Code", "?"), told.get("Message", str(error))
        remedy = (
            "; the docs page of this command lists the permissions it needs" if "AccessDenied" in code else ""
        )
        raise CommandFailed(f"AWS refused {error.operation_name}: {code}: {message}{remedy}") from error
    except BotoCoreError as error:
        raise CommandFailed(f"AWS could not be asked: {error}") from error
