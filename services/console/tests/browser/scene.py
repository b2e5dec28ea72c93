# SPDX-License-Identifier: Apache-2.0
"""A plant's month as the console would see it: what the browser tests click through and the pictures show.

Frames and sensor records are the demo's own; orders, outcomes and heat maps are made up, and the pages say nothing else.
"""

import csv
import datetime
import gzip
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy
from console_process import PLACE
from console_stand_in import StandInCloud, work_order

from linewatch.v1 import event_pb2, verdict_pb2
from linewatch_capture.grey_png import grey_png
from linewatch_runtime.events import Place, envelope, new_event_id, origin
from work_orders.policy_data import PATH, digest_of

SAMPLE = Path(__file__).parents[4] / "plant" / "sample"
MACHINE = Place("plant-1", "line-2", "machine-1")
PV = {"name": "pv-el-cells", "version": "1.0.0", "digest": "sha256:" + "7c1e" * 16}
TURBOFAN = {"name": "turbofan", "version": "1.0.0", "digest": "sha256:" + "b04a" * 16}
# Of the console's own audit entry of an approval.
AUDITED = "sha256:" + "a0d1" * 16
TRAINED_ON = "sha256:" + "51f0" * 16
WAITING_FRAME, WAITING_WINDOW, CREATED, HELD = (
    "lw-5c1d9a0e7b42",
    "lw-8a47e1c09d35",
    "lw-f20b6e813a97",
    "lw-3b90c2d411ee",
)
LONG_NAME = "high-pressure compressor of the reserve drive at the far end of hall B, refurbished"
_EPOCHS = itertools.count(1)


def at(hours_ago: float, seconds: float = 0) -> str:
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours_ago, seconds=-seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def heat_of(frame: bytes) -> bytes:
    """Where the cell is darker than its surroundings, as a heat map: near enough to the model's for a picture."""
    grey = cv2.imdecode(numpy.frombuffer(frame, numpy.uint8), cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(numpy.float32)
    dark = numpy.clip(cv2.GaussianBlur(small, (0, 0), 9) - cv2.GaussianBlur(small, (0, 0), 1.5), 0, None)
    dark[:, :4] = dark[:, -4:] = dark[:4] = dark[-4:] = 0
    heat = cv2.GaussianBlur(dark, (0, 0), 1.6)
    return grey_png((255 * heat / max(1e-6, float(heat.max()))).astype(numpy.uint8).tobytes(), 64, 64)


def evidence_frames(directory: Path, station: str, names: list[Path]) -> list[dict[str, str]]:
    """The frames and their heat maps, in the evidence directory as capture lays them out."""
    files = []
    folder = directory / station / "20261121"
    folder.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(names):
        stem, frame = f"0198d1f0-{number:04d}", source.read_bytes()
        (folder / f"{stem}.jpg").write_bytes(frame)
        (folder / f"{stem}.heatmap.png").write_bytes(heat_of(frame))
        for kind, ending in (("frame", ".jpg"), ("heatmap", ".heatmap.png")):
            path = f"{station}/20261121/{stem}{ending}"
            files.append({"kind": kind, "path": path, "digest": "sha256:" + f"{number:02d}ab" * 16})
    return files


def evidence_window(directory: Path, name: str) -> dict[str, str]:
    folder = directory / "line-2" / "20261121"
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(SAMPLE / "turbofan" / "records.csv.gz", "rt") as text:
        rows = list(csv.reader(text))
    channels = [rows[0].index(column) for column in rows[0] if column != "engine"]
    picked = [rows[0], *rows[60:120]]
    (folder / name).write_text("\n".join(",".join(row[at] for at in channels) for row in picked) + "\n")
    return {"kind": "window", "path": f"line-2/20261121/{name}", "digest": "sha256:" + "c4d1" * 16}


def cracked() -> list[Path]:
    return sorted((SAMPLE / "pv-el-cells" / "images").glob("3-cracking-*/*.jpg"))


def places(risks: Sequence[float | None], threshold: float) -> list[dict[str, Any]]:
    return [
        {"epoch": 4, "sequence": 4100 + number, "event_id": f"0198-{number}", "risk": risk, "over": risk is not None and risk > threshold}
        for number, risk in enumerate(risks)
    ]  # fmt: skip


STRINGER = {
    "asset_id": "STR-01", "name": "cell stringer 1", "location": "hall A, line 1", "criticality": "B",
    "warranty_until": "2099-08-31", "last_maintenance": "2026-09-14",
    "maintenance_history": [
        {"at": "2026-09-14", "what": "solder heads cleaned, pressure set to 2.1 bar", "by": "R. Amsler"},
        {"at": "2026-05-02", "what": "gripper pads replaced", "by": "R. Amsler"},
        {"at": "2025-11-20", "what": "yearly inspection", "by": "Solartech service"},
    ],
}  # fmt: skip
ENGINE = {
    "asset_id": "TF-01", "name": "turbofan 1", "location": "test cell 3", "criticality": "A",
    "warranty_until": "2025-03-31", "last_maintenance": "2026-07-01",
    "maintenance_history": [{"at": "2026-07-01", "what": "compressor wash", "by": "M. Keller"}],
}  # fmt: skip
THRESHOLDS = {
    "automatic": {"on": 0.8, "inclusive": False, "off": 0.7},
    "approval": {"on": 0.5, "inclusive": True, "off": 0.4},
}
HPC = {
    "failure_mode": "hpc-degradation", "failure_type": "High-pressure compressor degradation",
    "recommended_action": "Borescope the high-pressure compressor; plan a wash or blade repair",
    "line": "line-2", "station": "machine-1", "model": TURBOFAN,
}  # fmt: skip


def raise_orders(cloud: StandInCloud, directory: Path) -> None:
    """Every state of an order, the two that wait rich enough to decide on."""
    frames = evidence_frames(directory, "line-1", cracked()[:4])
    window = evidence_window(directory, "0198d1f0-w.csv")
    older = [
        {"reference": "lw-0d31aa01", "status": "closed", "failure_mode": "cell-crack", "created_at": at(24 * 21), "risk": 0.71,
         "finding": "confirmed", "erp_id": "WO-10184", "why": "same asset and failure mode"},
        {"reference": "lw-0d31aa02", "status": "closed", "failure_mode": "cell-crack", "created_at": at(24 * 55), "risk": 0.58,
         "finding": "no_fault", "erp_id": "WO-10011", "why": "same asset and failure mode"},
        {"reference": "lw-0d31aa03", "status": "rejected", "failure_mode": "cell-crack", "created_at": at(24 * 61), "risk": 0.52,
         "finding": None, "erp_id": None, "why": "same asset and failure mode"},
    ]  # fmt: skip
    cloud.add(work_order(
        WAITING_FRAME, created_at=at(0.4), observed_at=at(0.41), evidence=frames, risk=0.66, severity=0.91, model=PV,
        event_ids=[f"0198-{number}" for number in range(4)], priority="MEDIUM",
        persistence=places([0.31, 0.44, 0.58, 0.47, 0.61, 0.63, 0.66], 0.5), thresholds=THRESHOLDS, asset=STRINGER, similar=older,
        approval={"announced_at": at(0.39), "reminded_at": None, "expires_at": at(-7.6), "on_expiry": "reject"},
        policy_version="2.0.0",
    ))  # fmt: skip
    cloud.add(work_order(
        WAITING_WINDOW, created_at=at(2.2), observed_at=at(2.21), evidence=[window], asset_id="TF-01", asset_name="turbofan 1",
        location="test cell 3", criticality="A", risk=0.74, severity=0.74, priority="HIGH",
        time_to_failure={"p10": 18, "p50": 31, "p90": 47, "unit": "cycle", "horizon": 125, "hours": {"p10": 36, "p50": 62, "p90": 94}},
        persistence=places([0.52, 0.57, 0.6, 0.66, 0.71, 0.72, 0.74], 0.5), thresholds=THRESHOLDS, asset=ENGINE, similar=[],
        escalations=[{"at": at(0.9), "why": "risk rose from 0.61 to 0.74", "priority": "HIGH", "risk": 0.74}],
        approval={"announced_at": at(2.2), "reminded_at": at(1.2), "expires_at": at(-1.3), "on_expiry": "create"}, **HPC,
    ))  # fmt: skip
    cloud.add(work_order(
        CREATED, status="awaiting_approval", created_at=at(30), evidence=[window], asset_id="TF-02", asset_name=LONG_NAME, location="hall B",
        criticality="A", risk=0.87, severity=0.87, band="automatic", asset=ENGINE | {"asset_id": "TF-02", "name": LONG_NAME},
        thresholds=THRESHOLDS, persistence=places([0.7, 0.81, 0.84, 0.86, 0.87], 0.8), policy_version="2.0.0", **HPC,
    ))  # fmt: skip
    trace_created(cloud)
    others = [
        # Seconds since 1970, as the API has it.
        (HELD, "creating", "STR-01", "cell stringer 1", 0.83, 5.0, {"hold_until": int(time.time() + 3.2 * 3600), "band": "automatic"}),
        ("lw-77aa120b93c1", "parked", "LAM-02", "laminator 2", 0.88, 9.0, {}),
        ("lw-19e4d0c7b2aa", "created", "TF-01", "turbofan 1", 0.91, 26.0, {"erp_id": "WO-10221", "erp_status": "in progress"} | HPC),
        ("lw-0d31aa01", "closed", "STR-01", "cell stringer 1", 0.71, 24 * 21.0, {"erp_id": "WO-10184", "finding": "confirmed", "closed_by": "R. Amsler"}),
        ("lw-0d31aa02", "closed", "STR-01", "cell stringer 1", 0.58, 24 * 55.0, {"erp_id": "WO-10011", "finding": "no_fault"}),
        ("lw-0d31aa03", "rejected", "STR-01", "cell stringer 1", 0.52, 24 * 61.0, {"decided_by": "M. Keller", "reason": "Known, repair is planned"}),
    ]  # fmt: skip
    for reference, status, asset_id, name, risk, hours, more in others:
        order = work_order(
            reference, status=status, asset_id=asset_id, asset_name=name, risk=risk, created_at=at(hours)
        )
        cloud.add(order | more)
    cloud.suppressed, cloud.enriched = 135, 48213
    cloud.reports = {"accuracy": accuracy(), "pilot-exit": pilot_exit(), "policy": POLICY, "assets": {"assets": [STRINGER, ENGINE]}}  # fmt: skip


def trace_created(cloud: StandInCloud) -> None:
    """An order with a whole life behind it: raised, approved, three tries at an ERP that was away, created, shown to the device."""
    order = cloud.orders[CREATED]
    record = cloud.record
    calls = [
        {"method": "GET", "path": f"/work-orders?reference={CREATED}", "outcome": "200", "ms": 41, "request_digest": "sha256:" + "1f" * 32, "answer": "[]"},
        {"method": "POST", "path": "/work-orders", "outcome": "ReadTimeoutError", "ms": 10004, "request_digest": "sha256:" + "2e" * 32, "answer": ""},
    ]  # fmt: skip
    again = [
        {"method": "GET", "path": f"/work-orders?reference={CREATED}", "outcome": "200", "ms": 38, "request_digest": "sha256:" + "1f" * 32,
         "answer": '[{"id":"WO-10219","external_reference":"lw-f20b6e813a97"}]'},
    ]  # fmt: skip
    record(CREATED, "announced", "watch", {"to": "maintenance@plant.example"}, at(29.99))
    record(
        CREATED, "approved", "M. Keller", {"reason": "heard it on the line too", "audit": AUDITED}, at(28.5)
    )
    record(CREATED, "tried", "work_orders", {"calls": calls, "why": "no answer in time"}, at(28.5, 2))
    record(CREATED, "created", "work_orders", {"calls": again, "erp_id": "WO-10219"}, at(28.49))
    record(
        CREATED, "shadow_written", "work_orders", {"shadow": "work-orders", "thing": "device-1"}, at(28.48)
    )
    order |= {
        "status": "created", "erp_id": "WO-10219", "erp_status": "open", "decided_by": "M. Keller", "decided_at": at(28.5),
        "reason": "heard it on the line too",
        "history": [
            {"at": at(30), "what": "opened", "by": "policy", "detail": "risk 0.87 in 4 of 5, band automatic"},
            {"at": at(28.5), "what": "approved", "by": "M. Keller", "detail": "heard it on the line too"},
            {"at": at(28.49), "what": "created", "by": "work_orders", "detail": "WO-10219"},
        ],
    }  # fmt: skip
    cloud.parts[CREATED] = [
        {"event_id": f"0198d1f0-7a{number}", "taken_at": at(30, number * 8), "result": "NG", "label": "HPC", "score": None, "severity": risk,
         "risk": risk, "evidence": [{"kind": "window", "path": "line-2/20261121/0198d1f0-w.csv", "digest": "sha256:" + "c4d1" * 16}],
         "model": TURBOFAN | {"training_data_digest": TRAINED_ON}}
        for number, risk in enumerate([0.81, 0.84, 0.86, 0.87])
    ]  # fmt: skip


RELEASED = json.loads(PATH.read_text())
POLICY = {"version": RELEASED["version"], "digest": digest_of(RELEASED), "document": RELEASED, "pilot": True}


def share(good: int, of: int) -> dict[str, float] | None:
    """Wilson's interval at 95 %."""
    if not of:
        return None
    z, p = 1.96, good / of
    middle, spread = (p + z * z / (2 * of)) / (1 + z * z / of), z * ((p * (1 - p) / of + z * z / (4 * of * of)) ** 0.5) / (1 + z * z / of)  # fmt: skip
    return {"value": round(p, 3), "low": round(max(0, middle - spread), 3), "high": round(min(1, middle + spread), 3)}  # fmt: skip


def counted(
    group: str | None, period: str | None, confirmed: int, other: int, none: int, unstated: int, escapes: int
) -> dict[str, Any]:
    judged = confirmed + other + none
    return {
        "group": group, "period": period, "orders": judged + unstated, "judged": judged, "confirmed": confirmed, "other_fault": other,
        "no_fault": none, "unstated": unstated, "precision": share(confirmed, judged), "overkill": share(none, judged),
        "why_not": None if judged else "no ended order has a finding", "escapes": escapes,
        "recall_at_most": share(confirmed, confirmed + escapes) if escapes else None,
        "recall_why_not": None if escapes else "no escape was reported: that is no proof that there was none",
    }  # fmt: skip


def accuracy() -> dict[str, Any]:
    months = ["2026-06", "2026-07", "2026-08", "2026-09", "2026-10", "2026-11"]
    rows = {
        "turbofan 1.0.0": [(4, 0, 2), (6, 1, 2), (7, 0, 1), (9, 0, 1), (8, 1, 1), (11, 0, 1)],
        "pv-el-cells 1.0.0": [(2, 1, 3), (5, 1, 3), (6, 2, 2), (8, 1, 2), (9, 1, 2), (7, 0, 1)],
    }
    trend = [
        counted(group, month, *counts, unstated=0, escapes=0)
        for group, all_counts in rows.items()
        for month, counts in zip(months, all_counts, strict=True)
    ]
    groups = [
        counted(group, None, *(sum(part) for part in zip(*rows[group], strict=True)), unstated=2, escapes=escapes)
        for group, escapes in (("turbofan 1.0.0", 1), ("pv-el-cells 1.0.0", 3))
    ]  # fmt: skip
    sums = [sum(group[name] for group in groups) for name in ("confirmed", "other_fault", "no_fault")]
    bins = [(0.5, 9, 4), (0.6, 14, 9), (0.7, 22, 17), (0.8, 35, 30), (0.9, 25, 24)]
    return {
        "generated_at": at(0), "first_day": "2026-06-01", "last_day": at(0)[:10], "by": "model", "per": "month", "confidence": 0.95,
        "total": counted(None, None, sums[0], sums[1], sums[2], unstated=4, escapes=4), "groups": groups, "trend": trend,
        "reliability": {
            "orders": 105, "ece": 0.048, "why_not": None,
            "bins": [
                {"from": low, "to": round(low + 0.1, 1), "orders": n, "mean_risk": round(low + 0.055, 3), "confirmed": good, "share": share(good, n)}
                for low, n, good in bins
            ],
        },
        "open": {"awaiting_approval": 2, "creating": 1, "parked": 1, "created": 2},
        "decisions": [
            {"by": "M. Keller", "approved": 31, "rejected": 6, "judged": 28, "confirmed": 25, "other_fault": 1, "no_fault": 2},
            {"by": "S. Odermatt", "approved": 19, "rejected": 9, "judged": 17, "confirmed": 13, "other_fault": 1, "no_fault": 3},
            {"by": "policy", "approved": 0, "rejected": 2, "judged": 0, "confirmed": 0, "other_fault": 0, "no_fault": 0},
        ],
        "left_out": {"too_many": 0}, "notes": ["4 of 113 ended orders have no finding; the shares speak about the other 109."],
    }  # fmt: skip


def pilot_exit() -> dict[str, Any]:
    tries = [(0.9, 25, 1), (0.85, 44, 3), (0.8, 60, 6), (0.75, 71, 10), (0.7, 82, 16)]
    bounds = [(orders, wrong, (share(wrong, orders) or {})["high"]) for _, orders, wrong in tries]
    return {
        "generated_at": at(0), "first_day": "2026-06-01", "last_day": at(0)[:10], "risk": 0.2, "confidence": 0.95, "by": "all",
        "counts_as_wrong": ["no_fault", "rejected"], "present": {"band": "automatic", "threshold": 0.8, "policy_version": "2.0.0"},
        "population": "Orders of turbofan 1.0.0 and pv-el-cells 1.0.0 that ended between 1 June and today.",
        "groups": [{
            "group": "all", "verdict": "justified", "threshold": 0.85, "is_present_justified": False,
            "sentence": "Creating orders without asking above risk 0.85 is justified: at most 18 % of them would be wrong, which is less than the 20 % that you accept.",
            "confirmed_needed": 0,
            "orders": {"judged": 109, "confirmed": 82, "other_fault": 8, "no_fault": 19, "rejected": 15, "unstated": 4, "expired": 2, "awaiting": 2},
            "candidates": [
                {"threshold": low, "is_present": low == 0.8, "orders": orders, "wrong": wrong, "share": share(wrong, orders), "upper": upper,
                 "p": 0.02, "level": 0.025, "is_certified": low >= 0.85, "confirmed_needed": 0}
                for (low, _, _), (orders, wrong, upper) in zip(tries, bounds, strict=True)
            ],
            "worst_case": {"verdict": "not_enough_outcomes", "threshold": None},
            "drift": {"first": {"orders": 55, "wrong": 8}, "second": {"orders": 54, "wrong": 5}, "p": 0.41, "is_doubtful": False},
        }],
        "left_out": {"other_models": 12, "without_risk": 0}, "notes": ["12 orders of earlier model versions are left out."],
    }  # fmt: skip


def window_event(sequence: int, severity: float, left: float) -> bytes:
    """A judged window of the machine, `left` cycles before its failure."""
    result = verdict_pb2.Verdict.NG if severity > 0.8 else verdict_pb2.Verdict.REVIEW if severity > 0.5 else verdict_pb2.Verdict.OK  # fmt: skip
    message = event_pb2.Inspection(
        origin=origin(MACHINE, next(_EPOCHS), sequence), part_id=f"FD003-045 cycle {sequence}", frame_to_verdict_s=0.0048,
        verdict=verdict_pb2.Verdict(
            result=result, label="HPC", failure_mode="hpc-degradation", severity=severity, score=severity, is_anomalous=severity > 0.5,
            time_to_failure=verdict_pb2.TimeToFailure(p10=left * 0.7, p50=left, p90=left * 1.35, unit="cycle", horizon=125, beyond_horizon=left > 124),
            model=verdict_pb2.ModelReference(name="turbofan", version="1.0.0", digest=TURBOFAN["digest"], variant="fp32", execution_provider="CPUExecutionProvider"),
        ),
    )  # fmt: skip
    return envelope(new_event_id(), "InferenceCompleted", MACHINE, message)


def frame_event(sequence: int, frame: Path, directory: Path, score: float) -> bytes:
    """A judged cell, its picture in the evidence directory."""
    (files, place) = (evidence_frames(directory, f"line-1/{sequence}", [frame]), PLACE)
    result = verdict_pb2.Verdict.NG if score > 0.45 else verdict_pb2.Verdict.REVIEW if score > 0.12 else verdict_pb2.Verdict.OK  # fmt: skip
    message = event_pb2.Inspection(
        origin=origin(place, next(_EPOCHS), sequence), part_id=frame.name, frame_to_verdict_s=0.022,
        evidence=[event_pb2.Evidence(kind=one["kind"], path=one["path"], digest=one["digest"]) for one in files],
        verdict=verdict_pb2.Verdict(
            result=result, label="crack" if score > 0.12 else "ok", failure_mode="cell-crack" if score > 0.12 else "", score=score,
            severity=score, is_anomalous=score > 0.45,
            regions=[verdict_pb2.Region(label="crack", score=score, x=90, y=120, width=120, height=70)] if score > 0.45 else [],
            model=verdict_pb2.ModelReference(name="pv-el-cells", version="1.0.0", digest=PV["digest"], variant="fp32", execution_provider="CPUExecutionProvider"),
        ),
    )  # fmt: skip
    return envelope(new_event_id(), "InferenceCompleted", place, message)


def statuses(*, is_online: bool = True) -> dict[str, dict[str, Any]]:
    """What the services tell, by topic."""
    stream = {"bytes": 0 if is_online else 812000, "max_bytes": 10485760, "oldest_age_s": 0 if is_online else 95, "retention_s": 81000, "rate_per_s": 5.2, "retention_limit": "bytes"}  # fmt: skip
    capture = {"state": "running", "sent": 5100, "judged": 5094, "not_inspected": 6, "skipped": 0, "spool": {"events": 0, "bytes": 0, "max_bytes": 67108864}}  # fmt: skip
    return {
        "linewatch/v1/plant-1/device/forwarder/status": {
            "state": "running" if is_online else "offline-uplink",
            "uplink": {"connected": is_online, "since": at(3), "for_s": 10800, "detail": "" if is_online else "timed out", "certificate_days": 214},
            "drain": {"state": "caught_up" if is_online else "stopped"}, "dead_letters": {"count": 1, "newest": [
                {"number": 1, "event_id": "0198", "stream": "predictions-line-1", "reason": "the cloud refused it: larger than 128 KB"}]},
            "evidence": {"state": "idle"},
            "streams": [stream | {"name": f"predictions-line-{number}", "events": 0 if is_online else 410, "stored": 5100, "delivered": 5100 if is_online else 4690} for number in (1, 2)],
        },
        "linewatch/v1/plant-1/device/inference/status": {"state": "ready", "models": [
            {"name": "pv-el-cells", "version": "1.0.0", "digest": PV["digest"], "variant": "fp32", "provider": "CPUExecutionProvider", "state": "ready", "thresholds": {"review": 0.12, "ng": 0.45}},
            {"name": "turbofan", "version": "1.0.0", "digest": TURBOFAN["digest"], "variant": "fp32", "provider": "CPUExecutionProvider", "state": "ready"}],
            "on_disk": [{"name": "pv-el-cells", "version": "0.9.1"}, {"name": "turbofan", "version": "0.8.0"}, {"name": "pv-el-cells", "version": "0.9.0"}], "on_disk_more": 2},
        "linewatch/v1/plant-1/line-1/station-1/status": capture, "linewatch/v1/plant-1/line-2/machine-1/status": capture,
    }  # fmt: skip


def play(publish: Any, directory: Path) -> None:
    """A shift on both lines, ended with a cracked cell and a worn machine."""
    for topic, status in statuses().items():
        publish(topic, status)
    for cycle in range(120):
        wear = max(0.0, (cycle - 40) / 80)
        publish(MACHINE_TOPIC, window_event(cycle + 1, min(0.97, 0.74 * wear**1.4), 125 - 94 * wear))
    steady = sorted((SAMPLE / "pv-el-cells" / "images").glob("1-steady/*.jpg"))
    for sequence, score in enumerate([0.02, 0.03, 0.2, 0.02, 0.04, 0.02, 0.61, 0.03, 0.02, 0.3, 0.05, 0.94]):
        frame = cracked()[sequence] if score > 0.45 else steady[sequence]
        publish(CAMERA_TOPIC, frame_event(sequence + 1, frame, directory, score))


CAMERA_TOPIC = "linewatch/v1/plant-1/line-1/station-1/inspection"
MACHINE_TOPIC = "linewatch/v1/plant-1/line-2/machine-1/inspection"
