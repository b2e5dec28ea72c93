# SPDX-License-Identifier: Apache-2.0
"""The value order and the budget: against a plain model, with two stations, open work orders, kills and full disks."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linewatch_capture import evidence_budget, evidence_lock
from linewatch_capture.evidence_budget import EvidenceBudget, EvidenceFull
from linewatch_capture.evidence_notes import EvidenceNotes, state_dir_of
from linewatch_capture.evidence_value import MARKS, RESERVES, Kept, Worth, first_to_go, order_within, worth_of

DAY = "20261121"
REPOSITORY = Path(__file__).resolve().parents[3]
GOOD, CERTAIN, UNCERTAIN = Worth.GOOD, Worth.CERTAIN, Worth.UNCERTAIN


_opened = []


@pytest.fixture(autouse=True)
def _closed_again():
    yield
    close_all()


def budget_of(root, max_bytes):
    root.mkdir(exist_ok=True)
    _opened.append(EvidenceBudget(root / "line-1", max_bytes, EvidenceNotes(state_dir_of(root), "line-1")))
    return _opened[-1]


def close_all():
    while _opened:
        _opened.pop().close()


def pin(root, *event_ids):
    """As the forwarder writes it."""
    state = state_dir_of(root)
    state.mkdir(exist_ok=True)
    (state / ".pins").write_text("".join(f"{one}\n" for one in event_ids))
    (state / ".pins").replace(state / "pins")


def uploaded(root, *names):
    (state_dir_of(root) / "uploaded").mkdir(parents=True, exist_ok=True)
    with (state_dir_of(root) / "uploaded" / "line-1").open("a") as file:
        file.write("".join(f"{one}\n" for one in names))


def files(root):
    """Everything of parts, half-written files too."""
    return {path.name: path.stat().st_size for path in (root / "line-1").glob("*/*")}


def number_of(root):
    return sorted(int(name.partition(".")[0], 16) for name in files(root))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "evidence"


class Writer:
    """Parts with rising ids."""

    def __init__(self, budget):
        self.budget = budget
        self.number = 0

    def __call__(self, worth, size=1000, **suffixes):
        self.number += 1
        content = {".jpg": bytes(size)} | {f".{name}.png": bytes(more) for name, more in suffixes.items()}
        return self.budget.keep(DAY, f"{self.number:08x}", worth, content)


# ---------------------------------------------------------------- the order


@given(st.lists(st.tuples(st.sampled_from(Worth), st.booleans(), st.integers(1, 50)), max_size=30), st.data())
def test_what_goes_is_the_least_valuable_of_the_first_class_above_its_reserve(parts, data):
    kept = [Kept(f"{i:04}", worth, size, up) for i, (worth, up, size) in enumerate(parts)]
    max_bytes = data.draw(st.integers(1, 2000))
    firsts, bytes_of = {}, {}
    for one in sorted(kept, key=order_within):
        firsts.setdefault(one.worth, one)
        bytes_of[one.worth] = bytes_of.get(one.worth, 0) + one.size_bytes

    chosen = first_to_go(firsts, bytes_of, max_bytes)

    assert (chosen is None) == (not kept)
    if chosen:
        is_over = {worth: total > RESERVES[worth] * max_bytes for worth, total in bytes_of.items()}
        for less_valuable in (one for one in kept if one.worth < chosen.worth):
            assert not is_over[less_valuable.worth], "only a class within its reserve is passed over"
        if not is_over[chosen.worth]:
            assert not any(is_over.values())
        assert all(order_within(chosen) <= order_within(one) for one in kept if one.worth is chosen.worth)


def test_good_before_certain_before_uncertain(root):
    keep = Writer(budget_of(root, 10_000))
    for worth in (UNCERTAIN, CERTAIN, GOOD) * 3:
        keep(worth)
    for _ in range(5):
        keep(UNCERTAIN)

    assert [worth_of(name) for name in sorted(files(root))] == [
        UNCERTAIN, UNCERTAIN, CERTAIN, UNCERTAIN, CERTAIN, *[UNCERTAIN] * 5,
    ]  # fmt: skip


def test_a_run_of_uncertain_parts_leaves_the_reserves(root):
    keep = Writer(budget_of(root, 100_000))
    for _ in range(30):
        keep(GOOD)
        keep(CERTAIN)
    for _ in range(500):
        keep(UNCERTAIN)

    worths = [worth_of(name) for name in files(root)]
    assert (worths.count(GOOD), worths.count(CERTAIN)) == (5, 25)


def test_a_new_good_part_takes_the_place_of_another_good_part(root):
    keep = Writer(budget_of(root, 100_000))
    for _ in range(10):
        keep(GOOD)
    for _ in range(200):
        keep(CERTAIN)
    before = set(files(root))

    keep(GOOD)

    (gone,) = before - set(files(root))
    assert worth_of(gone) is GOOD


def test_within_a_class_what_the_cloud_has_goes_first(root):
    keep = Writer(budget_of(root, 5000))
    names = [keep(CERTAIN)[".jpg"] for _ in range(5)]
    uploaded(root, names[3], names[1])

    for _ in range(3):
        keep(CERTAIN)

    assert number_of(root) == [3, 5, 6, 7, 8], "2 and 4 were uploaded; then the oldest"


def test_a_part_counts_as_uploaded_when_all_its_files_are(root):
    keep = Writer(budget_of(root, 4000))
    names = [keep(CERTAIN, heatmap=1000) for _ in range(2)]
    uploaded(root, names[1][".jpg"])

    keep(CERTAIN)

    assert set(number_of(root)) == {2, 3}, (
        "the second one is not uploaded whole, so the oldest goes, heat map and all"
    )


def test_files_of_release_0_2_0_are_understood(root):
    day = root / "line-1" / DAY
    day.mkdir(parents=True)
    for name in ("00000001.jpg", "00000001.heatmap.png", "00000002.ok.jpg", "00000003.csv"):
        (day / name).write_bytes(bytes(1000))

    keep = Writer(budget_of(root, 4000))
    keep.number = 3
    keep(UNCERTAIN)
    assert set(number_of(root)) == {1, 3, 4}
    keep(UNCERTAIN)
    assert set(number_of(root)) == {3, 4, 5}


def test_every_mark_is_read_back():
    for worth, mark in MARKS.items():
        for suffix in (".jpg", ".png", ".csv", ".heatmap.png"):
            assert worth_of(f"0198c0de-0000-7000-8000-000000000000{mark}{suffix}") is worth


# ---------------------------------------------------------------- the budget


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_budget_holds_to_the_byte_whatever_happens(tmp_path_factory, data):
    """Two stations, pins and uploads that come and go, restarts; the files always are what a plain model keeps."""
    close_all()  # of the example before
    root = tmp_path_factory.mktemp("budget") / "evidence"
    stations = [budget_of(root, 3000), budget_of(root, 3000)]
    pins: set[str] = set()
    here: dict[str, Kept] = {}
    up: set[str] = set()
    for number in range(data.draw(st.integers(1, 40))):
        match data.draw(st.sampled_from(["keep", "keep", "keep", "keep", "pin", "upload", "restart"])):
            case "pin":
                pins = set(data.draw(st.lists(st.sampled_from(sorted(here) or ["none"]), max_size=4)))
                pin(root, *pins)
            case "upload" if here:
                event_id = data.draw(st.sampled_from(sorted(here)))
                uploaded(root, f"{DAY}/{event_id}{MARKS[here[event_id].worth]}.jpg")
                up.add(event_id)
            case "restart":
                stations[data.draw(st.integers(0, 1))] = budget_of(root, 3000)
            case _:
                event_id, size = f"{number:08x}", data.draw(st.integers(1, 1200))
                worth = data.draw(st.sampled_from(Worth))
                station = stations[data.draw(st.integers(0, 1))]
                newcomer = Kept(event_id, worth, size)
                expected = model(here, newcomer, pins, up)
                if expected is None:
                    with pytest.raises(EvidenceFull):
                        station.keep(DAY, event_id, worth, {".jpg": bytes(size)})
                else:
                    station.keep(DAY, event_id, worth, {".jpg": bytes(size)})
                    here = expected
                assert station.used_bytes == sum(files(root).values()) <= 3000
        assert {name.partition(".")[0] for name in files(root)} == set(here)


def model(here, newcomer, pins, up):
    """What is there afterwards; None when the newcomer is not kept. Slow and plain."""
    left = dict(here)
    while sum(one.size_bytes for one in left.values()) + newcomer.size_bytes > 3000:
        free = [Kept(one.event_id, one.worth, one.size_bytes, one.event_id in up) for one in left.values()
                if one.event_id not in pins]  # fmt: skip
        if not free:
            return None
        over = [worth for worth in Worth
                if sum(one.size_bytes for one in [*free, newcomer] if one.worth is worth) > RESERVES[worth] * 3000
                and any(one.worth is worth for one in free)]  # fmt: skip
        worth = min(over or [one.worth for one in free])
        del left[min((one for one in free if one.worth is worth), key=order_within).event_id]
    return left | {newcomer.event_id: newcomer}


def test_a_part_larger_than_the_whole_budget_is_not_kept_and_nothing_goes_for_it(root):
    """Regression: everything else was removed, and then the budget broken all the same."""
    keep = Writer(budget_of(root, 5000))
    keep(CERTAIN)

    with pytest.raises(EvidenceFull, match="a part of 6000 bytes"):
        keep(UNCERTAIN, 6000)

    assert number_of(root) == [1]


def test_what_an_open_work_order_holds_never_goes_and_is_free_once_it_closes(root):
    keep = Writer(budget_of(root, 3000))
    for worth in (GOOD, CERTAIN, CERTAIN):
        keep(worth)
    pin(root, "00000001", "00000002", "00000003")

    with pytest.raises(EvidenceFull, match="3000 of 3000 are held by open work orders"):
        keep(UNCERTAIN)
    assert number_of(root) == [1, 2, 3]

    pin(root, "00000002")
    keep(UNCERTAIN)
    keep(UNCERTAIN)
    assert number_of(root) == [2, 5, 6]


def test_other_pins_in_a_file_that_looks_as_the_one_before_are_seen(root):
    """Two writes within a tick of the kernel's clock: the second file may get the first one's number, time and size."""
    keep = Writer(budget_of(root, 2000))
    keep(CERTAIN)
    keep(CERTAIN)
    pin(root, "00000001")
    pins = state_dir_of(root) / "pins"
    os.utime(pins, ns=(0, 0))
    keep(CERTAIN)
    assert number_of(root) == [1, 3]

    pins.write_text("00000003\n")
    os.utime(pins, ns=(0, 0))
    keep(CERTAIN)

    assert number_of(root) == [3, 4]


def test_a_lower_budget_holds_from_the_start_but_for_what_orders_hold(root):
    keep = Writer(budget_of(root, 5000))
    for _ in range(5):
        keep(CERTAIN)

    budget_of(root, 2000)
    assert number_of(root) == [4, 5]
    pin(root, "00000004", "00000005")
    budget_of(root, 1000)
    assert number_of(root) == [4, 5]


def test_pins_that_cannot_be_read_stay_as_they_were(root, caplog):
    keep = Writer(budget_of(root, 2000))
    keep(GOOD)
    keep(GOOD)
    pin(root, "00000001")
    keep(GOOD)
    (state_dir_of(root) / "pins").unlink()
    (state_dir_of(root) / "pins").mkdir()

    keep(GOOD)

    assert number_of(root) == [1, 4]
    assert "pins_not_read" in caplog.text


# ---------------------------------------------------------------- two stations


def test_two_stations_of_a_line_share_one_budget(root):
    """Regression: each counted only what was there at its start and what it wrote itself, so two held twice the budget."""
    stations = [Writer(budget_of(root, 10_000)), Writer(budget_of(root, 10_000))]
    for number in range(40):
        stations[number % 2].number = number
        stations[number % 2](CERTAIN)
        assert sum(files(root).values()) <= 10_000

    assert number_of(root) == [*range(31, 41)], "the newest ten of both"
    assert stations[1].budget.used_bytes == 10_000


def test_a_restart_does_not_remove_what_another_station_is_writing(root):
    """Regression: a start removed every half-written file, also one that the other station was about to rename."""
    keep = Writer(budget_of(root, 10_000))
    keep(CERTAIN)
    (root / "line-1" / DAY / ".00000009.jpg").write_bytes(bytes(100))
    lock = os.open(root / "line-1" / ".lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    with pytest.raises(OSError, match="another station holds"):
        budget_of(root, 10_000)
    assert ".00000009.jpg" in files(root)

    os.close(lock)
    budget_of(root, 10_000)
    assert ".00000009.jpg" not in files(root), "nobody writes it any more"


def test_a_stopped_station_costs_the_others_a_moment_and_no_more(root, monkeypatch):
    monkeypatch.setattr(evidence_lock, "LONGEST_LOCK_WAIT_S", 0.1)
    keep = Writer(budget_of(root, 10_000))
    lock = os.open(root / "line-1" / ".lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    with pytest.raises(OSError, match="is it stopped"):
        keep(CERTAIN)

    os.close(lock)
    keep(CERTAIN)


@pytest.mark.parametrize("name", [".lock", ".journal"])
def test_what_can_not_be_opened_anew_is_tried_again_and_the_files_of_others_are_left_alone(
    root, tmp_path, monkeypatch, name
):
    """Regression: the closed one's number was used on, and by then it was another file's."""
    first, second = Writer(budget_of(root, 3000)), Writer(budget_of(root, 3000))
    first(CERTAIN)
    (root / "line-1" / name).unlink()
    first(CERTAIN)
    second.number = first.number
    with monkeypatch.context() as short:
        short.setattr(os, "open", no_more_files(name))
        with pytest.raises(OSError, match="Too many open files"):
            second(CERTAIN)
    with (tmp_path / "another").open("wb") as another:
        second(CERTAIN)
        another.write(b"whole")
    assert (tmp_path / "another").read_bytes() == b"whole"
    assert number_of(root) == [1, 2, 4]
    assert second.budget.used_bytes == 3000


def no_more_files(name):
    """In the place of os.open, as where too many files are open, but for other names."""
    opens = os.open

    def open_others(path, *more):
        if str(path).endswith(name):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return opens(path, *more)

    return open_others


def test_a_station_that_can_not_open_the_lock_anew_does_not_hold_the_one_before(root, monkeypatch):
    """The others would wait for it at each part, and keep nothing, for as long as it has no part of its own."""
    first, second = Writer(budget_of(root, 3000)), Writer(budget_of(root, 3000))
    first(CERTAIN)
    second.number = first.number
    (root / "line-1" / ".lock").unlink()
    with monkeypatch.context() as short:
        short.setattr(os, "open", no_more_files(".lock"))
        with pytest.raises(OSError, match="Too many open files"):
            second(CERTAIN)

    first(CERTAIN)
    assert number_of(root) == [1, 2]


def test_a_listing_that_fails_is_begun_anew_and_the_budget_holds(root, monkeypatch):
    """Regression: what it had not listed was there all the same, uncounted."""
    first, second = Writer(budget_of(root, 3000)), Writer(budget_of(root, 3000))
    for _ in range(3):
        first(CERTAIN)
    (root / "line-1" / ".journal").unlink()
    first(CERTAIN)
    second.number = first.number

    def no_listing(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as short:
        short.setattr(Path, "glob", no_listing)
        with pytest.raises(OSError, match="Too many open files"):
            second(CERTAIN)
    second(CERTAIN)
    assert number_of(root) == [3, 4, 6]
    assert second.budget.used_bytes == 3000


def test_a_closed_budget_has_no_file_open(root):
    def files_open():
        return sum(one.name.isdigit() for one in Path("/proc/self/fd").iterdir())

    before = files_open()
    budget = budget_of(root, 10_000)
    assert files_open() > before
    budget.close()
    budget.close()
    assert files_open() == before


def test_an_emptied_directory_is_taken_as_it_is(root):
    first, second = Writer(budget_of(root, 3000)), Writer(budget_of(root, 3000))
    first(CERTAIN)
    second.number = 0x10
    shutil.rmtree(root / "line-1")
    for _ in range(3):
        first(CERTAIN)
        second(CERTAIN)

    assert len(files(root)) == 3
    assert first.budget._lock.is_taken()
    assert not second.budget._lock.is_taken(), "both lock the same file again"


def test_a_long_journal_is_begun_anew(root, monkeypatch):
    monkeypatch.setattr(evidence_budget, "LONGEST_JOURNAL_BYTES", 500)
    first, second = Writer(budget_of(root, 3000)), Writer(budget_of(root, 3000))
    second.number = 0x1000
    for _ in range(100):
        first(CERTAIN)
        second(CERTAIN)
        assert sum(files(root).values()) <= 3000

    assert (root / "line-1" / ".journal").stat().st_size < 700


@pytest.mark.parametrize("damage", [b"+ 1000 20261121/0000", b"gibberish\n", b"+ many 20261121/x.jpg\n"])
def test_a_torn_journal_is_listed_anew(root, damage):
    first, second = Writer(budget_of(root, 3000)), Writer(budget_of(root, 3000))
    second.number = 0x1000
    first(CERTAIN)
    with (root / "line-1" / ".journal").open("ab") as journal:
        journal.write(damage)

    for _ in range(5):
        second(CERTAIN)
        first(CERTAIN)

    assert first.budget.used_bytes == sum(files(root).values()) == 3000


# ---------------------------------------------------------------- kills and full disks

STATION = """
import sys
from pathlib import Path
from linewatch_capture.evidence_budget import EvidenceBudget
from linewatch_capture.evidence_notes import EvidenceNotes, state_dir_of
from linewatch_capture.evidence_value import Worth
root, start = Path(sys.argv[1]), int(sys.argv[2])
budget = EvidenceBudget(root / "line-1", int(sys.argv[3]), EvidenceNotes(state_dir_of(root), "line-1"))
for number in range(start, start + 10_000):
    names = budget.keep("20261121", f"{number:08x}", Worth(number % 3), {".jpg": bytes(number % 4000), ".heatmap.png": bytes(500)})
    print(number, *names.values(), flush=True)
"""


def station(root, start, max_bytes):
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("protos", "runtime", "services/capture"))
    return subprocess.Popen(
        [sys.executable, "-c", STATION, str(root), str(start), str(max_bytes)],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.parametrize("max_bytes", [60_000, 1_000_000_000])
def test_kills_of_two_stations_leave_the_budget_whole_and_every_named_file_on_disk(root, max_bytes):
    root.mkdir()
    named = set()
    running = [station(root, 0, max_bytes), station(root, 0x100000, max_bytes)]
    for kill in range(10):
        killed, other = running[kill % 2], running[1 - kill % 2]
        said = b"".join(killed.stdout.readline() for _ in range(5 + kill % 3))
        killed.kill()  # wherever it is
        said += killed.communicate()[0]
        named |= {name for line in said.decode().splitlines(keepends=True) if line.endswith("\n")
                  for name in line.split()[1:]}  # fmt: skip
        other.send_signal(signal.SIGSTOP)
        os.waitpid(other.pid, os.WUNTRACED)
        assert sum(files(root).values()) <= max_bytes, "half-written ones included"
        other.send_signal(signal.SIGCONT)
        running[kill % 2] = station(root, (kill + 2) * 0x100000, max_bytes)
    for process in running:
        process.kill()
        process.communicate()

    assert len(named) >= 100
    budget = budget_of(root, max_bytes)
    assert budget.used_bytes == sum(files(root).values()) <= max_bytes
    assert not [name for name in files(root) if name.startswith(".")]
    if max_bytes > 60_000:  # nothing had to go
        assert {Path(name).name for name in named} <= files(root).keys()


def test_a_kill_between_the_journal_and_the_file_leaves_no_part_uncounted(root, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}").write_bytes(content[:-1])
        raise Killed

    first, second = Writer(budget_of(root, 3000)), Writer(budget_of(root, 3000))
    second.number = 0x1000
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(evidence_budget, "write_durably", killed)
        first(CERTAIN)

    second(CERTAIN)
    second(CERTAIN)
    assert second.budget.used_bytes == 3000, "what the killed one left on disk is counted"
    second(CERTAIN)
    assert number_of(root) == [0x1001, 0x1002, 0x1003], "and goes like any other"


def test_a_disk_that_takes_no_more_bytes_keeps_nothing_of_the_part(root):
    keep = Writer(budget_of(root, 1_000_000))
    keep(CERTAIN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            keep(CERTAIN, 100, heatmap=60_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)

    assert list(files(root)) == ["00000001.jpg"], "the frame went with its heat map"
    assert keep.budget.used_bytes == 1000
    keep(CERTAIN)
