# SPDX-License-Identifier: Apache-2.0
"""A production line on a device: our rendered recipes, in folders, a network and under names of their own."""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brokers import wait_for
from conformance.device import RUNNING, SUCCEEDED, Device, Outcome
from conformance.engine import containers, remove
from conformance.models import Maker
from conformance.recipe import Recipe
from conformance.uplink import HOST, PORT, Uplink

from linewatch_plant.counts import Counts, edge_counts
from linewatch_plant.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "plant" / "sample" / "pv-el-cells" / "images"
RECORDS = ROOT / "plant" / "sample" / "turbofan" / "records.csv.gz"
PARTS_PER_S = 4
HANGS_S = 300
"""Seconds that capture waits for inference's answer about a part, as long as it may be set to: a test pauses inference."""
LAST_PARTS = 20
"""Parts that are still to be taken when the shift ends."""

BROKER, INFERENCE, CAPTURE, CAPTURE2, FORWARDER, CONSOLE, CELLS, TURBOFAN = (
    "Broker", "Inference", "Capture", "Capture2", "Forwarder", "Console", "model.pv-el-cells", "model.turbofan",
)  # fmt: skip
SERVICES = (BROKER, INFERENCE, CAPTURE, FORWARDER, CONSOLE)
MODELS = (CELLS, TURBOFAN)


class Line:
    """One device with one line. `parts` pictures lie in its source folder; each is one part."""

    def __init__(self, make: type[Device], rendered: Path, nucleus: Path, folder: Path, parts: int) -> None:
        """`rendered`: with recipes/ and artifacts/. `nucleus`, `folder`: roots of the nucleus and of Linewatch."""
        artifacts = nucleus / "given"
        shutil.copytree(rendered / "artifacts", artifacts)
        device = make(nucleus, artifacts)
        self.device = device
        self.folder = folder
        self.parts = parts
        self.prefix = f"lwc-{uuid.uuid4().hex[:8]}"
        self.recipes: dict[str, Recipe] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        """Part -> what the next deployments configure besides."""
        for path in sorted((rendered / "recipes").glob("*.json")):
            recipe = Recipe.load(path)
            self.recipes[recipe.name.removeprefix("io.linewatch.")] = recipe
        self.models = Maker(artifacts)
        self.uplink = Uplink(folder / "cloud", f"{self.prefix}-uplink", self.prefix)
        self.uplink.hand_over(folder / "uplink")
        self.console_port = free_port()
        pictures = sorted(PICTURES.rglob("*.jpg"))
        (folder / "source").mkdir()
        for number in range(parts):
            part = folder / "source" / f"part-{number:05}.jpg"
            if number < len(pictures):
                shutil.copy(pictures[number], part)
            else:
                os.link(folder / "source" / f"part-{number % len(pictures):05}.jpg", part)

    def container(self, part: str) -> str:
        """Name of a service's container."""
        return f"{self.prefix}-{part.lower()}"

    def merge(self, part: str) -> dict[str, Any]:
        """The configuration that a deployment gives a component."""
        own: dict[str, dict[str, Any]] = {
            CAPTURE: {"Source": "folder", "Rate": str(PARTS_PER_S), "InspectDeadline": str(HANGS_S)},
            CAPTURE2: {
                "Source": "records",
                "SourceDirectory": str(RECORDS.parent),
                "Path": RECORDS.name,
                "Model": "turbofan",
                "Station": "machine-1",
                "Rate": str(PARTS_PER_S),
            },
            FORWARDER: {"UplinkHost": HOST, "UplinkPort": str(PORT)},
            INFERENCE: {"TrustedKeys": self.models.trusted},
            CONSOLE: {"Port": str(self.console_port)},
        }
        shared = {"Directory": str(self.folder)}
        if part in own or part == BROKER:
            return {
                **shared,
                "Network": self.prefix,
                "Name": self.container(part),
                **own.get(part, {}),
                **self.settings.get(part, {}),
            }
        return {**shared, "InferenceName": self.container(INFERENCE)}

    def deploy(
        self, changed: Mapping[str, Recipe] | None = None, *, only: tuple[str, ...] = SERVICES + MODELS
    ) -> Outcome:
        """The whole set, with other versions of some. A version that succeeded is the one of later deployments."""
        wanted = {part: (changed or {}).get(part) or self.recipes[part] for part in only}
        outcome = self.device.deploy(
            *wanted.values(), merge={recipe.name: self.merge(part) for part, recipe in wanted.items()}
        )
        if outcome.status == SUCCEEDED:
            self.recipes.update(wanted)
        return outcome

    def is_running(self, part: str) -> bool:
        return self.device.state(self.recipes[part]) == RUNNING

    def wait_running(self, deadline_s: float = 240) -> None:
        """Until every service is RUNNING."""
        for part in SERVICES:
            self.device.wait(self.recipes[part], RUNNING, deadline_s)

    def ids(self) -> dict[str, str]:
        """Service -> id of its container. Asserts that there is one container of each name and no other."""
        shown = containers(self.prefix)
        for other in (self.uplink.name, f"{self.container(BROKER)}-secrets"):
            shown.pop(other, None)
        return {name.removeprefix(f"{self.prefix}-"): container for name, container in shown.items()}

    def restarts_of(self, part: str) -> int:
        """How often the component came into RUNNING."""
        return self.device.components[self.recipes[part].name].entered(RUNNING)

    # --- what became of the parts ---

    def counts(self) -> Counts:
        return edge_counts(
            {"line-1/station-1": self.folder / "state/capture/capture.db"},
            self.folder / "state/forwarder/forwarder.db",
        )

    def judged(self) -> int:
        return self.counts().parts["judged"]

    def wait_judged(self, more: int, deadline_s: float = 180) -> None:
        """Until so many more parts are judged than now."""
        before = self.judged()
        wait_for(
            lambda: self.judged() >= before + more, f"{more} more parts are judged; {before} were", deadline_s
        )

    def end_shift(self) -> None:
        """Leaves capture a few parts more than it has taken, for the end of its source: `parts` is then how many in all.

        How many parts a test needs hangs on the machine, so there are more than any needs.
        """
        others = tuple(part for part in (*SERVICES, *MODELS) if part != CAPTURE)
        assert self.deploy(only=others).status == SUCCEEDED
        taken = self.counts().parts["sent"]
        assert 0 < taken < self.parts, "the source has ended before the shift"
        self.parts = min(self.parts, taken + LAST_PARTS)
        for picture in sorted((self.folder / "source").iterdir())[self.parts :]:
            picture.unlink()
        assert self.deploy().status == SUCCEEDED

    def inspections(self, line: str = "line-1") -> list[dict[str, Any]]:
        """What the uplink heard of a line's parts, without repeats of the same event."""
        heard: dict[str, Any] = {str(event["id"]): event for event in self.uplink.heard()}
        return [
            event for event in heard.values() if "subject" in event and f"/{line}/" in str(event["source"])
        ]

    def close(self) -> None:
        try:
            self.device.close()
        except BaseException:
            self.device.power_cut()
            raise
        finally:
            remove(self.prefix, self.prefix)
