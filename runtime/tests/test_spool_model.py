# SPDX-License-Identifier: Apache-2.0
"""The spool against a model of ten lines: any sequence of operations and reopens leaves both with the same events."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from linewatch_runtime.spool import ROW_OVERHEAD, Record, Spool, SpoolFull, StreamLimit, WhenFull

STREAMS = ("line-1", "line-2")
PAYLOAD = 100
ROOM = 6
"""Records that fit a stream."""


class SpoolAgainstModel(RuleBasedStateMachine):
    """`events` maps an id to its record in order of arrival; `gone` holds ids that were settled or buried."""

    known = Bundle("known")

    @initialize(policy=st.sampled_from(WhenFull))
    def open(self, policy: WhenFull) -> None:
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(
            dir=memory if memory.is_dir() else None
        )  # no disk to wait for
        self.limit = StreamLimit(ROOM * (PAYLOAD + ROW_OVERHEAD), when_full=policy)
        self.events: dict[str, Record] = {}
        self.gone: set[str] = set()
        self.dropped = 0
        self.next_id = 0
        self.reopen()

    @rule()
    def reopen(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
        self.spool = Spool(Path(self.folder.name) / "spool.db", self.limit)

    @rule(
        target=known,
        batch=st.lists(st.tuples(st.sampled_from(STREAMS), st.booleans()), min_size=1, max_size=4),
    )
    def append_new(self, batch: list[tuple[str, bool]]):
        records = []
        for stream, alarm in batch:
            self.next_id += 1
            records.append(Record(str(self.next_id), stream, "topic", bytes(PAYLOAD), alarm))
        self._append(records)
        return multiple(*(one.event_id for one in records))

    @rule(event_id=known, stream=st.sampled_from(STREAMS), alarm=st.booleans())
    def append_again(self, event_id: str, stream: str, alarm: bool) -> None:
        self._append([Record(event_id, stream, "topic", bytes(PAYLOAD), alarm)])

    def _append(self, records: list[Record]) -> None:
        events, dropped = dict(self.events), self.dropped
        full = False
        for one in records:
            if one.event_id in events or one.event_id in self.gone:
                continue
            same = [kept for kept in events.values() if kept.stream == one.stream]
            if len(same) == ROOM:
                shed = self.limit.when_full is WhenFull.SHED_GOOD
                losers = [kept for kept in same if not (shed and kept.alarm)]
                if self.limit.when_full is WhenFull.REJECT or not losers:
                    full = True
                    break
                del events[losers[0].event_id]
                dropped += 1
            events[one.event_id] = one
        try:
            self.spool.append(records)
        except SpoolFull:
            assert full
        else:
            assert not full
            self.events, self.dropped = events, dropped

    @rule(ids=st.lists(known, max_size=5))
    def settle(self, ids: list[str]) -> None:
        here = {one for one in ids if one in self.events}
        assert self.spool.settle(ids) == len(here)
        for one in here:
            del self.events[one]
            self.gone.add(one)

    @rule(event_id=consumes(known))
    def bury(self, event_id: str) -> None:
        self.spool.bury(Record(event_id, "line-1", "topic", b"", alarm=False), "why")
        self.events.pop(event_id, None)
        self.gone.add(event_id)

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "spool"):
            return
        rows = [one.record for one in self.spool.oldest(1000, by_class=False)]
        assert rows == list(self.events.values())
        by_class = [one.record for one in self.spool.oldest(1000)]
        assert by_class == sorted(rows, key=lambda one: not one.alarm)
        for state in self.spool.streams():
            mine = [one for one in rows if one.stream == state.name]
            assert (state.events, state.bytes) == (len(mine), sum(one.size for one in mine))
        assert sum(sum(one.dropped.values()) for one in self.spool.streams()) == self.dropped

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.folder.cleanup()


TestSpoolAgainstModel = SpoolAgainstModel.TestCase
TestSpoolAgainstModel.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
