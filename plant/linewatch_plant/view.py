# SPDX-License-Identifier: Apache-2.0
"""The live terminal view of the plant."""

import json
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from linewatch_plant.counts import Counts, percentile
from linewatch_runtime.mqtt import Message

_COLOURS = {"OK": "green", "NG": "bold red", "REVIEW": "yellow", "not inspected": "magenta"}
_STRIP = 40
_DECIDES = "approver"
"""The role that decides on work orders; the user that a demo makes for it is named as the role."""


def how_to_sign_in(url: str, sign_ins: Mapping[str, str]) -> list[str]:
    """A line for each user, who decides on orders last: there it is still seen. `sign_ins`: password by name."""
    names = sorted(sign_ins, key=lambda name: name == _DECIDES)
    return [f"sign in at {url} as {name}, password {sign_ins[name]}" for name in names]


@dataclass(slots=True)
class LineView:
    """What was seen of one station."""

    part: str = "-"
    result: str = "-"
    label: str = ""
    score: float = 0.0
    model: str = ""
    results: Counter[str] = field(default_factory=Counter)
    strip: deque[str] = field(default_factory=lambda: deque(maxlen=_STRIP))
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    seen: deque[float] = field(default_factory=lambda: deque(maxlen=60))


class View:
    """Collects what came over MQTT and draws it with the counts."""

    def __init__(self, console_url: str) -> None:
        self._console_url = console_url
        self.lines: dict[str, LineView] = {}
        self.phase = "starting"
        self.sign_ins: dict[str, str] = {}
        """Password of each user of the console."""
        self.command = ""
        """`linewatch` for the demo's account, once that is up."""
        self.first_verdict_at: float | None = None
        self.notes: dict[str, str] = {}
        """What somebody of the device has to say, by station."""

    def hear(self, message: Message) -> None:
        """Takes one message of the device in; what can't be read is left to the services to tell."""
        station, kind = "/".join(message.topic.split("/")[3:5]), message.topic.rsplit("/", 1)[-1]
        try:
            document = json.loads(message.payload)
            if kind == "inspection":
                self._inspection(station, document)
            elif kind == "engine":
                self._engine(document)
            elif kind == "status":
                self._status(station, document)
        except (ValueError, KeyError, TypeError, AttributeError):
            return

    def _engine(self, event: dict[str, Any]) -> None:
        if event["type"] in {"ModelLoadError", "EngineError"}:
            self.notes["inference"] = f"{event['type']}: {event['data'].get('message', '')}"
        elif event["type"] == "ModelLoadSuccess":
            self.notes.pop("inference", None)

    def _status(self, station: str, status: dict[str, Any]) -> None:
        for model in status.get("models", []):
            # The retained status tells a refusal that happened before this view listened.
            if model["state"] == "UNAVAILABLE" and model.get("reason") != "not loaded":
                self.notes[f"model {model['name']} {model['version']}"] = str(model.get("reason", ""))
        if status.get("state") in {"waiting", "stopped", "full"} and status.get("detail"):
            self.notes[station] = str(status["detail"])
        else:
            self.notes.pop(station, None)

    def _inspection(self, station: str, event: dict[str, Any]) -> None:
        if event["type"] not in {"InferenceCompleted", "InferenceError"}:
            return
        data = event["data"]
        line = self.lines.setdefault(station, LineView())
        verdict = data.get("verdict")
        line.part = str(data.get("part_id", "-"))
        line.result = str(verdict["result"]) if verdict else "not inspected"
        line.results[line.result] += 1
        line.strip.append(line.result)
        line.seen.append(time.monotonic())
        if verdict:
            line.label, line.score = str(verdict.get("label", "")), float(verdict.get("score", 0.0))
            model = verdict.get("model", {})
            line.model = f"{model.get('name', '?')} {model.get('version', '')}"
            self.first_verdict_at = self.first_verdict_at or time.monotonic()
        if "frame_to_verdict_s" in data:
            line.latencies_s.append(float(data["frame_to_verdict_s"]))

    def draw(self, counts: Counts, restarted: Mapping[str, int]) -> RenderableType:
        """The whole view."""
        title = Text.assemble(("Linewatch ", "bold"), (self.phase, "cyan"))
        *others, decides = how_to_sign_in(self._console_url, self.sign_ins) or [
            f"{self._console_url} comes up behind the cloud"
        ]
        users = Text.assemble(
            "Ctrl-C stops everything\n",
            (f"{self.command} orders list demo\n" if self.command else "", "dim"),
            ("".join(f"{one}\n" for one in others), "dim"),
            (decides, "bold"),
        )
        trouble = Text("\n".join(self.trouble(restarted)), style="yellow")
        return Panel(
            Group(self._lines(), self._hops(counts), trouble, users), title=title, title_align="left"
        )

    def plain(self, counts: Counts, restarted: Mapping[str, int]) -> str:
        """One line, for a terminal that can't redraw."""
        parts, events, orders = counts.parts, counts.events, counts.work_orders
        return (
            f"{self.phase}: parts {parts['judged']} judged, {parts['not_inspected']} not inspected, {parts['skipped']} skipped"
            f" | events {events['published']} published, {events['stored']} stored, {events['delivered']} delivered,"
            f" {events['enriched']} enriched, backlog {counts.backlog}"
            f" | orders {orders['created']} created, {orders['awaiting_approval']} awaiting approval"
            + "".join(f" | {told}" for told in self.trouble(restarted))
        )

    def trouble(self, restarted: Mapping[str, int]) -> list[str]:
        """What the device has to say that a person should know."""
        told = [f"{who}: {what}" for who, what in sorted(self.notes.items())]
        if restarted:
            names = ", ".join(f"{name} {count}x" for name, count in sorted(restarted.items()))
            told.append(f"started again: {names} (see build/demo/logs)")
        return told

    def _lines(self) -> Table:
        table = Table(expand=True, box=None, pad_edge=False)
        for name in (
            "line/station",
            "part",
            "verdict",
            "score",
            "OK",
            "NG",
            "REVIEW",
            "not insp.",
            "parts/s",
            "p50 ms",
            "p99 ms",
        ):
            table.add_column(
                name, justify="left" if name in {"line/station", "part", "verdict"} else "right", no_wrap=True
            )
        for name, line in sorted(self.lines.items()):
            colour = _COLOURS.get(line.result, "white")
            table.add_row(
                name, line.part, Text(f"{line.result} {line.label}", style=colour), f"{line.score:.2f}",
                *(str(line.results[kind]) for kind in _COLOURS),
                f"{_rate(line.seen):.1f}", _ms(line.latencies_s, 0.5), _ms(line.latencies_s, 0.99),
            )  # fmt: skip
            marks = Text.assemble(*(("■", _COLOURS.get(result, "white")) for result in line.strip))
            table.add_row("", Text(line.model, style="dim"), marks)
        if not self.lines:
            table.add_row("waiting for the first verdict …")
        return table

    def _hops(self, counts: Counts) -> Table:
        table = Table(expand=True, box=None, pad_edge=False)
        rows = {"parts": counts.parts, "events": counts.events, "work orders": counts.work_orders}
        table.add_column("")
        table.add_column("")
        for name, row in rows.items():
            cells = [f"{key.replace('_', ' ')} [bold]{value}[/bold]" for key, value in row.items()]
            if name == "events":
                style = "yellow" if counts.backlog else "green"
                cells.append(f"[{style}]waiting for the cloud [bold]{counts.backlog}[/bold][/{style}]")
            table.add_row(f"[dim]{name}[/dim]", "  ".join(cells))
        return table


def _rate(seen: deque[float]) -> float:
    recent = [moment for moment in seen if time.monotonic() - moment < 10]
    return len(recent) / max(1.0, time.monotonic() - recent[0]) if recent else 0.0


def _ms(latencies_s: deque[float], share: float) -> str:
    value = percentile(list(latencies_s), share)
    return "-" if value is None else f"{value * 1000:.0f}"
