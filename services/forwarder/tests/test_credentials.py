# SPDX-License-Identifier: Apache-2.0
"""AWS credentials by the uplink's certificate, and by the token exchange service; from real servers on loopback."""

import datetime
import logging
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import CredentialRetrievalError
from brokers import Certificates, make_certificates
from credential_provider import ROLE_ALIAS, Asked, CredentialServer
from pydantic import ValidationError

from linewatch_forwarder.settings import Settings
from linewatch_forwarder.uplinks.credentials import CertificateExchange, _refreshing, aws_session

OWN_CHAIN = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_credentials_of_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in OWN_CHAIN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "certificates")


@pytest.fixture
def provider(certificates: Certificates) -> Iterator[CredentialServer]:
    with CredentialServer(certificates) as server:
        yield server


def settings_for(provider: CredentialServer, certificates: Certificates, **more: Any) -> Settings:
    values: dict[str, Any] = {
        "uplink": "none", "device": "press-4", "aws_region": "eu-central-1", "uplink_ca_file": certificates.ca_file,
        "uplink_certificate_file": certificates.device_file, "uplink_key_file": certificates.device_key_file,
        "credentials_host": f"localhost:{provider.port}", "role_alias": ROLE_ALIAS,
    }  # fmt: skip
    return Settings(**{**values, **more})


class Clock:
    """A clock that a test moves, as the exchange's."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- by the certificate ---------------------------------------------------------------------------------------------


def test_the_certificate_gives_the_roles_credentials_and_names_the_thing(
    provider: CredentialServer, certificates: Certificates
) -> None:
    session = aws_session(settings_for(provider, certificates))
    assert provider.asked == [], "nobody is asked before credentials are needed"

    given = session.get_credentials().get_frozen_credentials()

    assert (given.access_key, given.secret_key, given.token) == ("ASIA1", "secret-1", "token-1")
    assert provider.asked == [
        Asked("device-1", f"/role-aliases/{ROLE_ALIAS}/credentials", "press-4-forwarder")
    ]
    assert session.region_name == "eu-central-1"


def test_credentials_of_the_environment_do_not_go_before_the_certificate(
    provider: CredentialServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody-else")

    given = aws_session(settings_for(provider, certificates)).get_credentials().get_frozen_credentials()

    assert given.access_key == "ASIA1"


def test_they_are_kept_while_they_are_young_and_refreshed_before_they_end(
    provider: CredentialServer, certificates: Certificates
) -> None:
    credentials = aws_session(settings_for(provider, certificates)).get_credentials()
    for _ in range(20):
        assert credentials.get_frozen_credentials().access_key == "ASIA1"
    assert len(provider.asked) == 1

    # botocore's own clock, moved on: the hour is over but for the part in which they are refreshed.
    now = datetime.datetime.now(datetime.UTC)
    credentials._time_fetcher = lambda: now + datetime.timedelta(seconds=3600 * 0.59)
    assert credentials.get_frozen_credentials().access_key == "ASIA1"
    credentials._time_fetcher = lambda: now + datetime.timedelta(seconds=3600 * 0.81)
    assert credentials.get_frozen_credentials().access_key == "ASIA2"


def test_the_shortest_life_that_iot_gives_does_not_ask_at_every_call(
    provider: CredentialServer, certificates: Certificates
) -> None:
    """botocore's own thresholds, 15 and 10 minutes, would: the shortest life is 15 minutes."""
    provider.life_s = 900.0
    credentials = aws_session(settings_for(provider, certificates)).get_credentials()

    assert {credentials.get_frozen_credentials().access_key for _ in range(20)} == {"ASIA1"}
    assert len(provider.asked) == 1


def test_devices_that_start_together_do_not_refresh_together(
    provider: CredentialServer, certificates: Certificates
) -> None:
    settings = settings_for(provider, certificates)
    before_the_end = set()
    for _ in range(8):
        credentials = _refreshing(CertificateExchange(settings))
        credentials.get_frozen_credentials()
        before_the_end.add(round(credentials._advisory_refresh_timeout))

    assert len(before_the_end) > 4
    assert all(3600 * 0.19 < seconds < 3600 * 0.41 for seconds in before_the_end)


def test_many_callers_make_one_request(provider: CredentialServer, certificates: Certificates) -> None:
    credentials = aws_session(settings_for(provider, certificates)).get_credentials()
    together = threading.Barrier(16)

    def ask(_: int) -> str:
        together.wait(60)
        return str(credentials.get_frozen_credentials().access_key)

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(ask, range(16))) == {"ASIA1"}
    assert len(provider.asked) == 1


def test_old_credentials_serve_while_the_provider_is_away_and_it_is_told_once(
    provider: CredentialServer, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    exchange = CertificateExchange(settings_for(provider, certificates), clock)
    credentials = _refreshing(exchange)
    assert credentials.get_frozen_credentials().access_key == "ASIA1"
    provider.stop()
    now = datetime.datetime.now(datetime.UTC)
    credentials._time_fetcher = lambda: now + datetime.timedelta(seconds=3600 * 0.9)

    with caplog.at_level(logging.INFO):
        for _ in range(5):
            clock.now += 100
            assert credentials.get_frozen_credentials().access_key == "ASIA1"
        told = [one for one in caplog.records if one.message == "credentials_not_refreshed"]
        assert len(told) == 1
        assert "Connection" in told[0].reason  # type: ignore[attr-defined]

        provider.start()
        clock.now += 100
        assert credentials.get_frozen_credentials().access_key == "ASIA2"
    assert [one.message for one in caplog.records if one.message == "credentials_refreshed"]


def test_after_a_failure_the_provider_has_a_rest_however_many_calls_there_are(
    provider: CredentialServer, certificates: Certificates
) -> None:
    provider.status = 500
    clock = Clock()
    exchange = CertificateExchange(settings_for(provider, certificates), clock)
    for _ in range(50):
        with pytest.raises(CredentialRetrievalError, match="HTTP 500"):
            exchange.fetch()
    assert len(provider.asked) == 1

    provider.status = 200
    clock.now += 61
    assert exchange.fetch()["access_key"] == "ASIA2"


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(403, "iot:AssumeRoleWithCertificate"), (404, "FORWARDER_ROLE_ALIAS"), (429, "tried again")],
)
def test_a_refusal_is_told_with_its_remedy(
    provider: CredentialServer, certificates: Certificates, status: int, remedy: str
) -> None:
    provider.status = status

    with pytest.raises(CredentialRetrievalError, match=rf"HTTP {status}, told by the test; .*{remedy}"):
        CertificateExchange(settings_for(provider, certificates)).fetch()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>a portal</html>", b"{}", b"[]", b'{"credentials": null}', b"\xff\xfe", b'{"credentials": {"accessKeyId": "A"}}',
        b'{"credentials": {"accessKeyId": "A", "secretAccessKey": "canary", "sessionToken": "t", "expiration": "soon"}}',
        b'{"credentials": {"accessKeyId": "A", "secretAccessKey": "canary", "sessionToken": "t", "expiration": 7}}',
    ],
)  # fmt: skip
def test_an_answer_without_credentials_is_an_error_that_holds_no_secret(
    provider: CredentialServer, certificates: Certificates, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    provider.body = body

    with pytest.raises(CredentialRetrievalError, match="FORWARDER_CREDENTIALS_HOST") as refused:
        CertificateExchange(settings_for(provider, certificates)).fetch()

    told = "".join(traceback.format_exception(refused.value)) + str([vars(one) for one in caplog.records])
    assert "canary" not in told


def test_credentials_that_ended_already_name_the_clock(
    provider: CredentialServer, certificates: Certificates
) -> None:
    provider.life_s = -60.0

    with pytest.raises(CredentialRetrievalError, match="is this device's clock right"):
        aws_session(settings_for(provider, certificates)).get_credentials().get_frozen_credentials()


def test_a_provider_that_says_nothing_holds_a_call_for_a_bounded_time(
    provider: CredentialServer, certificates: Certificates
) -> None:
    provider.hang = True
    exchange = CertificateExchange(settings_for(provider, certificates), timeout_s=0.2)

    with pytest.raises(CredentialRetrievalError, match="TimeoutError"):
        exchange.fetch()


def test_a_server_of_another_authority_gets_no_request(certificates: Certificates, tmp_path: Path) -> None:
    foreign = make_certificates(tmp_path / "foreign")
    with CredentialServer(foreign) as impostor:
        exchange = CertificateExchange(settings_for(impostor, certificates))
        with pytest.raises(CredentialRetrievalError, match="CERTIFICATE_VERIFY_FAILED"):
            exchange.fetch()

        assert impostor.asked == []


def test_a_certificate_that_was_renewed_is_used_at_the_next_refresh(
    certificates: Certificates, tmp_path: Path
) -> None:
    renewed = make_certificates(tmp_path / "renewed")
    clock = Clock()
    with CredentialServer(renewed) as provider:
        exchange = CertificateExchange(settings_for(provider, certificates), clock)
        with pytest.raises(CredentialRetrievalError):
            exchange.fetch()
        for old, new in (
            (certificates.ca_file, renewed.ca_file), (certificates.device_file, renewed.device_file),
            (certificates.device_key_file, renewed.device_key_file),
        ):  # fmt: skip
            old.write_bytes(new.read_bytes())
        clock.now += 61

        assert exchange.fetch()["access_key"] == "ASIA1"


# --- by the token exchange service ----------------------------------------------------------------------------------


def test_the_token_exchange_service_is_asked_again_before_its_credentials_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with CredentialServer(token="of-this-component", life_s=300.0) as service:
        for name, value in service.environment().items():
            monkeypatch.setenv(name, value)
        session = aws_session(Settings(uplink="none", aws_region="eu-central-1"))

        # boto3 asks again for what has less than ten minutes left.
        first = session.get_credentials().get_frozen_credentials()
        second = session.get_credentials().get_frozen_credentials()
        service.life_s = 3600.0
        third = session.get_credentials().get_frozen_credentials()
        fourth = session.get_credentials().get_frozen_credentials()

    assert session.get_credentials().method == "container-role"
    numbers = [int(one.access_key.removeprefix("ASIA")) for one in (first, second, third, fourth)]
    assert numbers[0] < numbers[1] < numbers[2] == numbers[3]
    assert {one.who for one in service.asked} == {"of-this-component"}


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"role_alias": ""}, "FORWARDER_ROLE_ALIAS must be set"),
        ({"credentials_host": ""}, "FORWARDER_CREDENTIALS_HOST must be set"),
        ({"uplink_key_file": None}, "FORWARDER_UPLINK_KEY_FILE must be set: the credential provider"),
        ({"credentials_host": "https://x"}, "credentials_host"),
        ({"role_alias": "../x"}, "role_alias"),
        ({"aws_region": "Frankfurt!"}, "aws_region"),
    ],
)
def test_wrong_setting_is_named(
    provider: CredentialServer, certificates: Certificates, wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        settings_for(provider, certificates, **wrong)
