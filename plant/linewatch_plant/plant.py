# SPDX-License-Identifier: Apache-2.0
"""The whole plant as real processes on loopback: broker, inference, two capture stations, forwarder, console, ERP
simulator, and the stand-in for AWS. `make demo` and tests/integration use it.

The services are the ones that run on a device, with other settings. Nothing in them knows that this is a demo.
"""

import asyncio
import contextlib
import fcntl
import logging
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from botocore.exceptions import BotoCoreError, ClientError

from linewatch_plant.broker import EMBEDDED
from linewatch_plant.counts import WORK_ORDERS, Counts, doubled, edge_counts
from linewatch_plant.demo_account import write_operator
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.processes import PlantError, Processes, Service, free_port
from linewatch_plant.standin_cloud import REGION, StandinCloud
from linewatch_plant.uplink_cable import UplinkCable

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "plant" / "sample"
SITE = "plant-1"
DEVICE = "device-1"
ENDLESS = 0
INSPECT_S = 60
"""For inference's answer: one machine that runs device, cloud and ERP stands still for longer than a device, and the parts
wait on disk."""


@dataclass(frozen=True, slots=True)
class Station:
    """One capture station of the plant.

    Attributes:
        source: "folder", "watch" or "records", as CAPTURE_SOURCE.
        parts: how many parts it plays; 0: endless.
        rate: parts per second.
    """

    line: str
    name: str
    source: str
    path: Path
    model: str
    parts: int = ENDLESS
    rate: float = 4.0

    @property
    def service(self) -> str:
        """Name of its process."""
        return f"capture-{self.line}"


@dataclass(frozen=True, slots=True)
class PlantOptions:
    """How the plant is built.

    Attributes:
        run_dir: state, logs and evidence of this run; emptied at start.
        models_dirs: where model packages lie, each <dir>/<name>/releases/<version>/; the first that has a model gives it.
        trusted_keys_dirs: where the public keys lie that may have signed them; dirs that are missing are left out.
        pilot: every work order awaits approval.
    """

    run_dir: Path
    stations: tuple[Station, ...]
    broker: str = EMBEDDED
    models_dirs: tuple[Path, ...] = (REPOSITORY / "models",)
    trusted_keys_dirs: tuple[Path, ...] = (
        REPOSITORY / "models" / "trusted-keys",
        REPOSITORY / "build" / "trusted-keys",
    )
    console_port: int | None = None
    pilot: bool = False


def sample_stations(parts: int = ENDLESS, rate: float = 4.0) -> tuple[Station, Station]:
    """Line 1 and line 2 on the committed sample; `parts` counts both together."""
    half = parts // 2
    return (
        Station(
            "line-1",
            "station-1",
            "folder",
            SAMPLE / "pv-el-cells" / "images",
            "pv-el-cells",
            parts - half,
            rate,
        ),
        Station(
            "line-2", "machine-1", "records", SAMPLE / "turbofan" / "records.csv.gz", "turbofan", half, rate
        ),
    )


class Plant:
    """Started by `running_plant`. The device's services run from the first second; what needs the cloud follows it."""

    def __init__(self, options: PlantOptions) -> None:
        self.options = options
        self.processes = Processes(options.run_dir / "logs")
        self.ports = {name: free_port() for name in ("mqtt", "inference", "erp")}
        self.ports["console"] = options.console_port or free_port()
        self.evidence_dir = options.run_dir / "evidence"
        self.cloud: StandinCloud | None = None
        self.cable: UplinkCable | None = None
        self.sign_ins: dict[str, str] = {}
        """Password of each user of the console, made for this run; filled when the console starts."""
        self.command: Path | None = None
        """`linewatch` for the demo's account, once that is up."""
        self.erp = ErpClient(f"http://127.0.0.1:{self.ports['erp']}")
        self._watches: list[asyncio.Task[None]] = []
        self.cloud_is_up = asyncio.Event()
        self._in_cloud = Counts()

    @property
    def console_url(self) -> str:
        """Where a person looks."""
        return f"http://127.0.0.1:{self.ports['console']}/"

    @property
    def capture_spools(self) -> dict[str, Path]:
        """The spool file of each capture station, by line/station."""
        return {
            f"{station.line}/{station.name}": self._state(station.service) / "capture.db"
            for station in self.options.stations
        }

    @property
    def forwarder_spool(self) -> Path:
        """The forwarder's spool file."""
        return self._state("forwarder") / "forwarder.db"

    async def start_device(self) -> None:
        """Broker, inference, capture: parts are judged from here on."""
        await self._start(
            Service(
                "broker", "linewatch_plant.broker",
                arguments=["--port", str(self.ports["mqtt"]), "--state-dir", str(self._state("broker")),
                           "--kind", self.options.broker],
            )
        )  # fmt: skip
        await self._start(Service("inference", "linewatch_inference", self._inference()))
        for station in self.options.stations:
            await self._start(Service(station.service, "linewatch_capture", self._capture(station)))

    async def start_cloud(self) -> None:
        """Stand-in cloud and ERP, then what speaks to them: forwarder and console."""
        await self._start(
            Service(
                "erp", "linewatch_plant.erp_simulator",
                arguments=["--port", str(self.ports["erp"]), "--state", str(self._state("erp") / "orders.json")],
            )
        )  # fmt: skip
        self.cloud = await asyncio.to_thread(
            StandinCloud.start, self._state("cloud"), self.erp.url, pilot=self.options.pilot
        )
        self.cable = UplinkCable(self.cloud.mqtt_host, self.cloud.mqtt_port)
        await self.cable.start()
        await self._start(
            Service("forwarder", "linewatch_forwarder", self._forwarder(self.cloud, self.cable))
        )
        await self._start(
            Service("console", "linewatch_console", await asyncio.to_thread(self._console, self.cloud))
        )
        self.command = write_operator(self.cloud, self.options.run_dir)
        self.cloud_is_up.set()

    async def stop(self) -> None:
        """Ends every process, within 10 s."""
        for watch in self._watches:
            watch.cancel()
        stopping = [asyncio.create_task(self.processes.stop(last="broker"), name="stop processes")]
        if self.cloud:
            stopping.append(asyncio.create_task(asyncio.to_thread(self.cloud.stop), name="stop cloud"))
        await asyncio.gather(*stopping, return_exceptions=True)
        if self.cable:
            await self.cable.stop()

    def failed(self) -> BaseException | None:
        """Why a process can't go on; None while all is well."""
        for watch in self._watches:
            if watch.done() and not watch.cancelled() and watch.exception():
                return watch.exception()
        return None

    async def counts(self) -> Counts:
        """Every hop's count, now. Before the cloud is up its part is 0; while it is away for a moment, what it last said."""
        counts = await asyncio.to_thread(edge_counts, self.capture_spools, self.forwarder_spool)
        if self.cloud and self.cloud_is_up.is_set():
            try:
                self._in_cloud = await asyncio.to_thread(_look_at_cloud, self.cloud, self.erp)
            except (requests.RequestException, BotoCoreError, ClientError) as error:
                log.warning("cloud_not_counted", extra={"reason": str(error)})
        seen = self._in_cloud
        counts.events["enriched"] = seen.events["enriched"]
        counts.work_orders, counts.unplaced, counts.dead_letters = (
            seen.work_orders,
            seen.unplaced,
            seen.dead_letters,
        )
        return counts

    async def at_rest(self, counts: Counts) -> bool:
        """Whether nothing is on its way any more: every event at its last hop, the cloud's queues empty."""
        if counts.on_their_way() or self.cloud is None:
            return False
        return await asyncio.to_thread(self.cloud.queues_are_empty)

    async def _start(self, service: Service) -> None:
        await self.processes.start(service)
        self._watches.append(asyncio.create_task(self.processes.watch(service), name=f"watch {service.name}"))

    def _state(self, name: str) -> Path:
        directory = self.options.run_dir / "state" / name
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _common(self, prefix: str, name: str) -> dict[str, str]:
        return {
            f"{prefix}_SITE": SITE,
            f"{prefix}_DEVICE": DEVICE,
            f"{prefix}_STATE_DIR": str(self._state(name)),
            f"{prefix}_MQTT_HOST": "127.0.0.1",
            f"{prefix}_MQTT_PORT": str(self.ports["mqtt"]),
        }

    def _inference(self) -> dict[str, str]:
        return {
            **self._common("INFERENCE", "inference"),
            "INFERENCE_HOST": "127.0.0.1",
            "INFERENCE_PORT": str(self.ports["inference"]),
            "INFERENCE_MODELS_DIR": str(self.options.run_dir / "models"),
            "INFERENCE_TRUSTED_KEYS_DIR": str(self.options.run_dir / "trusted-keys"),
            "INFERENCE_MODELS": ",".join(sorted({station.model for station in self.options.stations})),
        }

    def _capture(self, station: Station) -> dict[str, str]:
        return {
            **self._common("CAPTURE", station.service),
            "CAPTURE_LINE": station.line,
            "CAPTURE_STATION": station.name,
            "CAPTURE_SOURCE": station.source,
            "CAPTURE_PATH": str(station.path),
            "CAPTURE_LOOP": "true",
            "CAPTURE_PARTS": str(station.parts),
            "CAPTURE_RATE": str(station.rate),
            "CAPTURE_MODEL": station.model,
            "CAPTURE_INFERENCE_ADDRESS": f"127.0.0.1:{self.ports['inference']}",
            "CAPTURE_INSPECT_DEADLINE_S": str(INSPECT_S),
            "CAPTURE_EVIDENCE_DIR": str(self.evidence_dir),
        }

    def _forwarder(self, cloud: StandinCloud, cable: UplinkCable) -> dict[str, str]:
        return {
            **self._common("FORWARDER", "forwarder"),
            "FORWARDER_UPLINK_HOST": "localhost",  # the name in the stand-in's certificate
            "FORWARDER_UPLINK_PORT": str(cable.port),
            "FORWARDER_UPLINK_CLIENT_ID": cloud.client_id,
            "FORWARDER_UPLINK_CA_FILE": str(cloud.ca_file),
            "FORWARDER_UPLINK_CERTIFICATE_FILE": str(cloud.certificate_file),
            "FORWARDER_UPLINK_KEY_FILE": str(cloud.key_file),
            "FORWARDER_EVIDENCE_DIR": str(self.evidence_dir),
            "FORWARDER_EVIDENCE_BUCKET": cloud.outputs["EvidenceBucketName"],
            # boto3's own variables: where S3 is, and the credentials that it takes there.
            "FORWARDER_AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_S3": cloud.endpoint_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def _console(self, cloud: StandinCloud) -> dict[str, str]:
        state = self._state("console")
        self.sign_ins = _users(state / "users.json", state / "sign-in")
        token_file = state / "cloud-api-token"
        token_file.touch(mode=0o600)
        token_file.write_text(cloud.api_token)
        return {
            **self._common("CONSOLE", "console"),
            "CONSOLE_HOST": "127.0.0.1",
            "CONSOLE_PORT": str(self.ports["console"]),
            "CONSOLE_USERS_FILE": str(state / "users.json"),
            "CONSOLE_EVIDENCE_DIR": str(self.evidence_dir),
            "CONSOLE_CLOUD_API_URL": cloud.api_url,
            "CONSOLE_CLOUD_API_TOKEN_FILE": str(token_file),
        }


@contextlib.asynccontextmanager
async def running_plant(options: PlantOptions) -> AsyncIterator[Plant]:
    """A plant whose processes all end with the block. The cloud comes up behind the device; see `cloud_is_up`."""
    with _locked(options.run_dir):
        if options.run_dir.exists():
            shutil.rmtree(options.run_dir)
        (options.run_dir / "logs").mkdir(parents=True)
        (options.run_dir / "evidence").mkdir()
        _place_models(options)
        plant = Plant(options)
        cloud = None
        try:
            await plant.start_device()
            cloud = asyncio.create_task(plant.start_cloud(), name="start cloud")
            plant._watches.append(cloud)
            yield plant
        finally:
            if cloud and not cloud.done():
                # The stand-in's start runs in a thread; it must come back before it can be stopped.
                await asyncio.wait([cloud], timeout=5.0)
            await plant.stop()


@contextlib.contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Keeps a second plant from emptying the directory of a running one. Raises PlantError."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with run_dir.with_name(run_dir.name + ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PlantError(f"another demo runs on {run_dir}; stop it first") from error
        yield


def _look_at_cloud(cloud: StandinCloud, erp: ErpClient) -> Counts:
    """The cloud's and the ERP's part of the counts."""
    counts, said = Counts(), cloud.counts()
    counts.events["enriched"] = said["enriched"]
    orders = erp.orders()
    own = said["work_orders"]
    counts.work_orders.update({name: own[name] for name in WORK_ORDERS if name in own})
    counts.work_orders.update(in_erp=len(orders), doubled=doubled(orders))
    counts.unplaced = own.get("creating", 0) + own.get("parked", 0)
    counts.dead_letters = cloud.dead_letters()
    return counts


def _users(file: Path, passwords: Path) -> dict[str, str]:
    """Makes the console's list of users as whoever sets up a device does; gives their passwords. Raises PlantError."""
    command = [sys.executable, "-m", "linewatch_console.users", "--file", str(file)]
    made = subprocess.run(
        [*command, "init", "--passwords", str(passwords)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise PlantError(f"the console's users could not be made: {made.stderr.strip()}")
    return dict(line.split() for line in passwords.read_text().splitlines())


def _place_models(options: PlantOptions) -> None:
    """Puts the models that the stations name, and the keys that may have signed them, where the device has them."""
    models, keys = options.run_dir / "models", options.run_dir / "trusted-keys"
    models.mkdir()
    keys.mkdir()
    for name in {station.model.partition(":")[0] for station in options.stations}:
        found = next(
            (place / name for place in options.models_dirs if (place / name / "releases").is_dir()), None
        )
        if found is None:
            places = ", ".join(str(place) for place in options.models_dirs)
            raise PlantError(
                f"MODEL={name}: there is no {name}/releases/<version>/ in {places}; make one with `make package`"
            )
        (models / name).symlink_to(found.resolve())
    for directory in options.trusted_keys_dirs:
        for key in directory.glob("*.pem"):
            shutil.copy(key, keys)


__all__ = ["Plant", "PlantError", "PlantOptions", "Station", "running_plant", "sample_stations"]
