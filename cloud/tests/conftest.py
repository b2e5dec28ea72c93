# SPDX-License-Identifier: Apache-2.0
"""One stand-in cloud and one ERP simulator for the whole folder; every test has assets of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.processes import free_port
from linewatch_plant.standin_cloud import REGION, StandinCloud

# Test modules are imported by path; what they share lies beside them.
sys.path.insert(0, str(Path(__file__).parent))

from cloud_line import Eventually, Line, wait_for


@pytest.fixture(scope="session")
def erp() -> Iterator[ErpClient]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "linewatch_plant.erp_simulator", "--port", str(port)])
    client = ErpClient(f"http://127.0.0.1:{port}")
    wait_for(client.is_up, "the ERP simulator")
    yield client
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def cloud(erp: ErpClient) -> Iterator[StandinCloud]:
    # The schedule would place parked orders behind a test's back; tests sweep themselves.
    parameters = {
        "ErpTimeoutSeconds": "1",
        "RetryBaseSeconds": "1",
        "SettleSeconds": "1",
        "SweepRate": "rate(1 day)",
        "BasicIngest": "true",
    }
    running = StandinCloud.start(None, erp.url, parameters=parameters)
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "erp" in request.fixturenames:
        quiet = (
            "down",
            "error_500",
            "error_500_after_create",
            "error_500_create_late",
            "hang_after_create",
            "too_many",
            "find_500",
            "refuse",
        )
        request.getfixturevalue("erp").set_faults(**dict.fromkeys(quiet, 0))


@pytest.fixture
def machine(cloud: StandinCloud, request: pytest.FixtureRequest) -> Line:
    """A machine of this test alone."""
    return Line.register(cloud, request.node.name, "machine")


@pytest.fixture
def stringer(cloud: StandinCloud, request: pytest.FixtureRequest) -> Line:
    """A station that inspects products, of this test alone."""
    return Line.register(cloud, request.node.name, "product")


@pytest.fixture(scope="session")
def environment(cloud: StandinCloud) -> dict[str, str]:
    """What the work_orders Lambda sees, for a desk in this process."""
    function = cloud.client("lambda").get_function_configuration(
        FunctionName=cloud.outputs["WorkOrdersFunctionName"]
    )
    os.environ.update(
        AWS_ENDPOINT_URL=cloud.endpoint_url,
        AWS_DEFAULT_REGION=REGION,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
    )
    return dict(function["Environment"]["Variables"])


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    return wait_for
