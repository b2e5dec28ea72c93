# SPDX-License-Identifier: Apache-2.0
"""Settings as data: mistakes are named at start, a plant's own names reach the wire, the page's examples are true."""

import ast
import json
import math
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from erp_products import CANARY, SecretsManager, environment, serving

from erp import check
from erp.atlas import AtlasSettings
from erp.check import run
from erp.choose import erp_of
from erp.maximo import MaximoSettings
from erp.odoo import OdooSettings
from erp.port import ErpAwayError, ErpRefusedError, ErpUnavailableError
from erp.rest import RestSettings
from erp.sap import SapSettings
from erp.settings import Common, SettingsError, read

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "erp.md").read_text()
KINDS: dict[str, type[Common]] = {
    "SAP S/4HANA": SapSettings, "Odoo 19": OdooSettings, "IBM Maximo": MaximoSettings, "Atlas CMMS": AtlasSettings,
    "Generic REST": RestSettings,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"ERP_KIND": "oracle"}, "ERP_KIND"),
        ({"ERP_BASE_URL": "http://erp.example.com"}, "https only"),
        ({"ERP_BASE_URL": "https://user:pw@erp.example.com"}, "ERP_BASE_URL"),
        ({"ERP_BASE_URL": "erp"}, "ERP_BASE_URL"),
        ({"ERP_BASE_URL": "https://erp.example.com:port"}, "ERP_BASE_URL"),
        ({"ERP_TIMEOUT_S": "soon"}, "ERP_TIMEOUT_S"),
        ({"ERP_TIMEOUT_S": "nan"}, "ERP_TIMEOUT_S"),
        ({"ERP_SETTINGS": "{"}, "no JSON"),
        ({"ERP_SETTINGS": "[]"}, "JSON object"),
        ({"ERP_SETTINGS": '{"list_att": "x"}'}, "unknown key 'list_att'"),
        ({"ERP_SETTINGS": '{"idempotency_key": "yes"}'}, "idempotency_key"),
        ({"ERP_SETTINGS": '{"client_auth": "digest"}'}, "client_auth"),
        ({"ERP_SETTINGS": '{"states": {"DONE": "finished"}}'}, "states['DONE']"),
        ({"ERP_SETTINGS": '{"states": ["DONE"]}'}, "states"),
        ({"ERP_SETTINGS": '{"token_url": "http://idp.example.com/token"}'}, "token_url"),
        ({"ERP_KIND": "sap", "ERP_SETTINGS": '{"auth": "oauth"}'}, "token_url"),
        ({"ERP_KIND": "sap", "ERP_SETTINGS": '{"time_zone": "Mars/Olympus"}'}, "time_zone"),
        ({"ERP_KIND": "odoo"}, "database"),
        ({"ERP_KIND": "maximo"}, "siteid"),
    ],
)
def test_a_wrong_setting_is_named_at_start(changed: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as told:
        erp_of({**environment("rest", "https://erp.example.com"), **changed}, SecretsManager())

    assert named in str(told.value)


@pytest.mark.parametrize("section", KINDS)
def test_the_example_of_the_page_is_taken(section: str) -> None:
    after = PAGE[PAGE.index(f"## {section}") :]
    example = after[after.index("```json\n") + 8 :]

    assert read(KINDS[section], example[: example.index("```")])


def test_the_page_names_every_setting_of_all_products() -> None:
    table = PAGE[PAGE.index("## Settings for all") : PAGE.index("## SAP S/4HANA")]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(Common.__dataclass_fields__)


def test_simulators_and_adapters_share_no_code() -> None:
    """A mistake in both would agree with itself."""
    for path, foreign in (
        *((path, "erp") for path in (ROOT / "plant/linewatch_plant/erp_simulators").glob("*.py")),
        *((path, "linewatch_plant") for path in (ROOT / "cloud/erp").glob("*.py")),
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert foreign not in {name.partition(".")[0] for name in names}, path


# ------------------------------------------------------------------------------------------- a plant's own API, as data


class PlantApi(BaseHTTPRequestHandler):
    """An API with names of its own; `ignores_search`: it shows every order, whatever is asked. `answered_number`: a creation
    is answered with another order's.
    """

    protocol_version = "HTTP/1.1"
    orders: list[dict[str, Any]]
    ignores_search = False
    answered_number = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/idp/token":
            self._answer(200, {"access_token": "t" * 20, "token_type": "Bearer", "expires_in": 60})
            return
        order = {**json.loads(body), "number": len(self.orders) + 7, "state": {"code": 10}}
        self.orders.append(order)
        number = self.answered_number or order["number"]
        self._answer(200, {"number": number, "state": {"code": 10}})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/v1/orders":
            wanted = parse_qs(parts.query).get("ref", [""])[0]
            found = [o for o in self.orders if self.ignores_search or o["header"]["ref"] == wanted]
            self._answer(200, {"data": {"items": found}})
        else:
            self._answer(200, self.orders[int(parts.path.rpartition("/")[2]) - 7])

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def plant_api() -> Iterator[tuple[str, type[PlantApi]]]:
    handler = type("Handler", (PlantApi,), {"orders": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join(10)


def own_settings(url: str) -> dict[str, Any]:
    """The page's example, with this machine's token endpoint."""
    after = PAGE[PAGE.index("## Generic REST") :]
    example = after[after.index("```json\n") + 8 :]
    settings: dict[str, Any] = json.loads(example[: example.index("```")])
    return {
        **settings,
        "token_url": f"{url}/idp/token",
        "assets": {"COMP-7": "10-4711"},
        "constants": {"plant": "1010"},
    }


def test_a_plants_own_names_reach_the_wire_and_come_back(plant_api: tuple[str, type[PlantApi]]) -> None:
    url, api = plant_api
    erp = erp_of(
        environment("rest", url, **own_settings(url)), SecretsManager(client_id="c", client_secret="secret")
    )

    made = erp.create({"external_reference": "lw-1", "asset_id": "COMP-7", "title": "Fan", "risk": 0.9})

    assert api.orders[0] == {
        "header": {"ref": "lw-1", "text": "Fan"}, "machine": "10-4711", "plant": "1010", "number": 7,
        "state": {"code": 10},
    }  # fmt: skip
    found = erp.find_by_reference("lw-1")
    assert found is not None
    assert (made.id, found.id, found.status) == ("7", "7", "10")
    api.orders[0]["state"]["code"] = 90
    assert erp.status("7").state == "completed"
    api.orders[0]["state"]["code"] = 55
    with pytest.raises(ErpRefusedError, match=r"'55'.*states"):
        erp.status("7")
    erp.add_note("7", "k", "goes nowhere")


def test_a_number_without_the_reference_is_looked_up_before_it_is_believed(
    plant_api: tuple[str, type[PlantApi]],
) -> None:
    url, api = plant_api
    secrets = SecretsManager(client_id="c", client_secret="secret")
    erp = erp_of(environment("rest", url, **own_settings(url)), secrets)
    api.answered_number = 4711

    assert erp.create({"external_reference": "lw-1", "asset_id": "A", "title": "Fan"}).id == "7"


def test_an_api_that_ignores_the_search_is_not_believed(plant_api: tuple[str, type[PlantApi]]) -> None:
    url, api = plant_api
    erp = erp_of(
        environment("rest", url, **own_settings(url)), SecretsManager(client_id="c", client_secret="secret")
    )
    erp.create({"external_reference": "lw-1", "asset_id": "A", "title": "Fan"})
    api.ignores_search = True

    with pytest.raises(ErpRefusedError, match="reference_parameter"):
        erp.find_by_reference("lw-2")
    assert next(step.is_good for step in run(erp)) is False


# --------------------------------------------------------------------------------------------- what one product has only


def test_sap_with_oauth() -> None:
    with serving("sap") as connected:
        secrets = SecretsManager(client_id="linewatch", client_secret=CANARY)
        settings = {"auth": "oauth", "token_url": connected.url + "/oauth/token"}
        erp = erp_of(environment("sap", connected.url, **settings), secrets)

        made = erp.create(
            {"external_reference": "lw-1", "asset_id": "A", "title": "Fan", "priority": "urgent"}
        )

        (kept,) = connected.kept("lw-1")
        assert (made.id, kept["record"]["MaintPriority"]) == (kept["id"], "1")
        assert kept["record"]["MaintNotifExtReferenceNumber"] == "LW-1"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_request_that_sap_has_forgotten_is_looked_up_and_then_new(is_there: bool) -> None:
    with serving("sap") as connected:
        order = {
            "external_reference": "lw-1",
            "asset_id": "A",
            "title": "Fan",
            "reserved_at": "2026-11-20T00:00:00Z",
        }
        if is_there:
            connected.erp.create(order)
        connected.simulator.set_faults(request_outdated=1)

        made = connected.erp.create(order)

        (kept,) = connected.kept("lw-1")
        assert kept["id"] == made.id


def test_sap_keeps_times_of_the_plants_day_and_calls_go_to_its_client() -> None:
    with serving("sap") as connected:
        erp = connected.adapter(client="100", time_zone="Europe/Berlin")
        order = {
            "external_reference": "lw-1",
            "asset_id": "A",
            "title": "Fan",
            "observed_at": "2026-07-01T22:30:00Z",
        }

        made = erp.create(order)

        # Half past midnight of the next day in Berlin.
        (kept,) = connected.kept("lw-1")
        assert kept["record"]["MalfunctionStartDate"] == "/Date(1782950400000)/"
        assert kept["record"]["MalfunctionStartTime"] == "PT00H30M00S"
        connected.simulator.technician(made.id, state="completed", at="2026-07-02T12:00:00Z")
        erp.add_note(made.id, "k", "t")
        # The simulator wrote its own clock's noon; in Berlin that was ten in the morning, UTC.
        assert erp.status(made.id).ended_at == "2026-07-02T10:00:00Z"
        with pytest.raises(ErpAwayError):
            connected.adapter(client="200").find_by_reference("lw-1")


def test_a_check_tells_when_sap_replaces_the_long_text_and_the_setting_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "SLOW_S", math.inf)  # a busy machine's searches are late, too
    with serving("sap") as connected:
        connected.simulator.set_faults(long_text_replaces=1)

        failed = [step for step in run(connected.adapter(), asset_id="A-1") if step.is_good is False]
        mended = [
            step
            for step in run(connected.adapter(long_text="replace"), asset_id="A-1")
            if step.is_good is False
        ]

        assert [step.name for step in failed] == ["keeps what was written"]
        assert "long_text" in failed[0].told
        assert mended == []


@pytest.mark.parametrize("kind", ["rest", "sap", "odoo", "maximo", "atlas"])
def test_a_created_without_a_word_is_looked_up(kind: str) -> None:
    """Maximo answers so where it does not know the header `properties`; from the others it is unclear."""
    with serving(kind) as connected:
        connected.simulator.set_faults(empty_after_create=1)
        order = {"external_reference": "lw-1", "asset_id": "A", "title": "Fan"}

        if kind == "maximo":
            assert connected.erp.create(order).id == connected.kept("lw-1")[0]["id"]
        else:
            with pytest.raises(ErpUnavailableError) as told:
                connected.erp.create(order)
            assert told.value.may_have_created
