# SPDX-License-Identifier: Apache-2.0
"""The spool against a small model: any sequence of operations, reopens, crashes and damage leaves both with the same.

A crash is a copy of the file and its log at any moment, opened as new: what a kill leaves. Power loss is
tests/faults/test_power_loss.py.
"""

import shutil
import tempfile
from pathlib import Path

from full_disk import in_memory
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from linewatch_runtime.spool import ROW_OVERHEAD, Record, Spool, SpoolFull, StreamLimit, WhenFull

STREAMS = ("line-1", "line-2")
PAYLOAD = 100
ROOM = 6
"""Records that fit a stream."""

AGE_S = 1000.0


class SpoolAgainstModel(RuleBasedStateMachine):
    """`events` maps an id to its record in order of arrival; `gone` holds ids that were settled or buried.

    `buried` maps a number to a record; `ages` an id to when it was stored, on the model's own clock.
    """

    known = Bundle("known")

    @initialize(policy=st.sampled_from(WhenFull))
    def open(self, policy: WhenFull) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=in_memory())  # no disk to wait for
        self.limit = StreamLimit(ROOM * (PAYLOAD + ROW_OVERHEAD), AGE_S, policy)
        self.events: dict[str, Record] = {}
        self.gone: set[str] = set()
        self.buried: dict[int, Record] = {}
        self.ages: dict[str, float] = {}
        self.now = 0.0
        self.dropped = 0
        self.replayed = 0
        self.next_id = 0
        self.opened = 0
        self.reopen()

    @rule()
    def reopen(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
        self.spool = Spool(self._path(), self.limit)

    def _path(self) -> Path:
        return Path(self.folder.name) / f"spool-{self.opened}.db"

    @rule()
    def crash(self) -> None:
        before = self._path()
        self.opened += 1
        for side in ("", "-wal"):
            if (file := before.with_name(before.name + side)).exists():
                shutil.copyfile(file, self._path().with_name(self._path().name + side))
        self.spool.close()
        self.spool = Spool(self._path(), self.limit)

    @rule(
        target=known,
        batch=st.lists(st.tuples(st.sampled_from(STREAMS), st.booleans()), min_size=1, max_size=9),
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
            self._change(records)
        except SpoolFull:
            assert full
        else:
            assert not full
            self.ages |= dict.fromkeys(events.keys() - self.events.keys(), self.now)
            self.events, self.dropped = events, dropped

    def _change(self, records: list[Record]) -> None:
        self.spool.append(records)

    @rule(ids=st.lists(known, max_size=5))
    def settle(self, ids: list[str]) -> None:
        here = {one for one in ids if one in self.events}
        assert self.spool.settle(ids) == len(here)
        for one in here:
            del self.events[one]
            self.gone.add(one)

    @rule(event_id=consumes(known))
    def bury(self, event_id: str) -> None:
        record = Record(event_id, "line-1", "topic", bytes(PAYLOAD), alarm=False)
        self.spool.bury(record, "why")
        self.buried[self.spool.buried(1)[0][0]] = record
        self.events.pop(event_id, None)
        self.gone.add(event_id)

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if not self.buried:
            return
        number = data.draw(st.sampled_from(sorted(self.buried)))
        record = self.buried[number]
        before = self.gone
        self.gone = before - {record.event_id}
        self._change, restore = lambda _: self.spool.replay([number]), self._change
        there = record.event_id in self.events
        if there:
            assert self.spool.replay([number]) == 0
        else:
            self._append([record])
        self._change = restore
        if record.event_id in self.events:
            del self.buried[number]
            self.replayed += not there
        else:
            self.gone = before

    @rule(seconds=st.sampled_from([1.0, 400.0, 701.0]))
    def time_passes(self, seconds: float) -> None:
        # No sum of 30 is near AGE_S: a kill may lose a moment of the clock.
        self.now += seconds
        self.spool._clock_base += seconds
        self.spool.append([], {"minutes": 1})  # a commit, which keeps the clock

    @rule()
    def expire(self) -> None:
        old = [one for one in self.events if self.now - self.ages[one] >= AGE_S]
        assert self.spool.expire() == len(old)
        for one in old:
            del self.events[one]
        self.dropped += len(old)

    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """A payload changes on the disk: its row is set aside at the next look, and may come again."""
        if not self.events:
            return
        record = self.events.pop(data.draw(st.sampled_from(sorted(self.events))))
        self.spool._db.execute(
            "UPDATE events SET payload = ? WHERE event_id = ?", (b"?" * PAYLOAD, record.event_id)
        )
        self.dropped += 1
        assert record not in [one.record for one in self.spool.oldest(1000)]
        number, _, reason = self.spool.buried(1)[0]
        assert reason == "damaged on disk"
        assert self.spool.replay([number]) == 0

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
        assert sum(self.spool.counts(one).get("replayed", 0) for one in STREAMS) == self.replayed

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.folder.cleanup()


TestSpoolAgainstModel = SpoolAgainstModel.TestCase
TestSpoolAgainstModel.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
