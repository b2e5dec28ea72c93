# SPDX-License-Identifier: Apache-2.0
"""Evidence through the whole plant: on disk, named by its digest in the event, in the cloud, held by open orders."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from brokers import until

from linewatch_plant.plant import Plant, PlantOptions, running_plant, sample_stations

DEADLINE_S = 240


def evidence_in_events(plant: Plant) -> dict[str, str]:
    """Path -> digest, of every event that the cloud has stored."""
    assert plant.cloud is not None
    events = [json.loads(item["event"]["S"]) for item in plant.cloud.scan("EventsTable")]
    return {one["path"]: one["digest"] for event in events for one in event["data"].get("evidence", ())}


def in_bucket(plant: Plant) -> dict[str, int]:
    """Key -> bytes."""
    assert plant.cloud is not None
    pages = plant.cloud.client("s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=plant.cloud.outputs["EvidenceBucketName"])
    return {one["Key"]: one["Size"] for page in found for one in page.get("Contents", ())}


@pytest.mark.anyio
async def test_what_an_event_names_is_on_disk_and_in_the_bucket_under_its_digest_and_orders_hold_theirs(
    tmp_path: Path,
) -> None:
    stations = sample_stations(80, 12)
    async with running_plant(PlantOptions(tmp_path / "run", stations)) as plant:
        await until(lambda: plant.failed() or plant.cloud_is_up.is_set(), "the cloud", DEADLINE_S)
        assert plant.failed() is None
        counts = await plant.counts()
        async with asyncio.timeout(DEADLINE_S):
            while counts.parts["judged"] < 80 or not await plant.at_rest(counts):
                counts = await plant.counts()
                await asyncio.sleep(0.3)
        named = await asyncio.to_thread(evidence_in_events, plant)
        assert len(named) >= 10
        cloud = plant.cloud
        assert cloud is not None

        def key(digest: str, path: str) -> str:
            name = digest.removeprefix("sha256:")
            return f"evidence/{cloud.client_id}/sha256/{name[:2]}/{name}{Path(path).suffix}"

        wanted = {key(digest, path) for path, digest in named.items()}
        await until(lambda: wanted <= in_bucket(plant).keys(), "the uploads", DEADLINE_S)

        for path, digest in named.items():
            content = (plant.evidence_dir / path).read_bytes()
            assert digest == "sha256:" + hashlib.sha256(content).hexdigest()
            assert in_bucket(plant)[key(digest, path)] == len(content)
        marked = {event_path for event_path in named if ".review." in event_path}
        assert marked, "the sample has uncertain parts"

        pins = plant.options.run_dir / "evidence-state" / "pins"
        await until(lambda: pins.exists() and pins.read_text().split(), "the pins", DEADLINE_S)
        pinned = set(pins.read_text().split())
        # Afterwards: an order that is raised meanwhile may hold more, none holds less.
        orders: list[dict[str, Any]] = cloud.api("GET", "/work-orders?limit=50").json()["work_orders"]
        held = {Path(one["path"]).name.partition(".")[0] for order in orders for one in order["evidence"]}
        assert orders
        assert pinned <= held
