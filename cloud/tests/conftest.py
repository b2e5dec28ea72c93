# SPDX-License-Identifier: Apache-2.0
"""One stand-in cloud and one ERP simulator for the whole folder; every test has assets of its own."""

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path

import boto3
import pytest

from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.erp_simulators.faults import Faults
from linewatch_plant.processes import free_port
from linewatch_plant.standin_cloud import REGION, StandinCloud

# Test modules are imported by path; what they share lies beside them.
sys.path.insert(0, str(Path(__file__).parent))

from cloud_line import Eventually, Line, wait_for, wait_for_erp

# What `environment` sets; the process is shared with the tests of other folders, and of files that want none of it.
_variables: dict[str, str] = {}
# boto3's session of those tests: it keeps the credentials of its first call, and another test's may be other ones.
_sessions: list[boto3.Session | None] = [None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """The stand-in's address and credentials are seen by the tests that ask for `environment`, whichever ran before."""
    before, others = dict(os.environ), boto3.DEFAULT_SESSION
    asks = "environment" in getattr(item, "fixturenames", ())
    if asks:
        os.environ.update(_variables)
        boto3.DEFAULT_SESSION = _sessions[0]
    try:
        return (yield)
    finally:
        if asks:
            _sessions[0], boto3.DEFAULT_SESSION = boto3.DEFAULT_SESSION, others
        for name in _variables:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in _variables if name in before})


@pytest.fixture(scope="session")
def erp() -> Iterator[ErpClient]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "linewatch_plant.erp_simulator", "--port", str(port)])
    client = ErpClient(f"http://127.0.0.1:{port}", timeout_s=30.0)
    wait_for_erp(process, client)
    yield client
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="session")
def cloud(erp: ErpClient) -> Iterator[StandinCloud]:
    # The schedules would place parked orders and poll behind a test's back; tests sweep and watch themselves.
    parameters = {
        # An ERP that shares a busy machine with the tests answers in more than one second now and then: an order is then
        # found, not created, or parked where the test wanted it refused; in more than four, too. One test waits for its end.
        "ErpTimeoutSeconds": "10",
        # Four times that and SettleSeconds: the functions take no shorter one.
        "LeaseSeconds": "41",
        "RetryBaseSeconds": "1",
        "SettleSeconds": "1",
        "SweepRate": "rate(1 day)",
        "WatchRate": "rate(1 day)",
        "BasicIngest": "true",
    }
    running = StandinCloud.start(None, erp.url, parameters=parameters)
    # Somebody who is told: without, nothing is announced and nothing expires (test_approvals.py).
    running.client("sqs").create_queue(QueueName="somebody")
    running.client("sns").subscribe(
        TopicArn=running.outputs["AnnouncementsArn"],
        Protocol="sqs",
        Endpoint=f"arn:aws:sqs:{REGION}:000000000000:somebody",
    )
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "erp" in request.fixturenames:
        # Every one, and the settings beside them.
        request.getfixturevalue("erp").set_faults(**asdict(Faults()))


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
    _variables.update(
        AWS_ENDPOINT_URL=cloud.endpoint_url,
        AWS_DEFAULT_REGION=REGION,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
    )
    os.environ.update(_variables)
    return dict(function["Environment"]["Variables"])


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    return wait_for
