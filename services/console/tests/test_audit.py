# SPDX-License-Identifier: Apache-2.0
"""The audit log: whole after a kill and a torn write, verifiable after its oldest part went, never passed by."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_process import DEADLINE_S, PASSWORDS, CloudServer, Console, Start, stranger, unanswered
from console_stand_in import work_order

from linewatch_console.audit.log import MOST_NOISE_PER_HOUR
from linewatch_console.audit.segments import SEGMENTS, Segments, newest, paths_of, verify


def at() -> str:
    return "2026-11-21T15:00:00.000Z"


def filled(directory: Path, entries: int) -> Segments:
    log = Segments(directory, 1 << 20, at)
    for number in range(entries):
        log.append("decision", "M. Keller", {"number": number})
    return log


def command(state_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "linewatch_console.audit", *arguments, "--state-dir", str(state_dir)]
    return subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_every_changed_byte_is_named(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 12)
    log.close()
    path = paths_of(tmp_path / "audit")[0]
    whole = path.read_bytes()
    lines = whole.count(b"\n")
    assert verify(tmp_path / "audit").fault == ""

    missed = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        verdict = verify(tmp_path / "audit")
        line = whole[:place].count(b"\n")
        if not verdict.fault or not (f"entry {line}" in verdict.fault or f"line {line + 1}" in verdict.fault):
            missed.append((place, verdict.fault))

    # Of the last line's end, and of a line break, only that the line is none can be said.
    assert [one for one in missed if not one[1]] == []
    assert len(missed) <= lines


@pytest.mark.parametrize(
    "harm", ["left out", "swapped", "cut off", "first file", "middle file", "written anew"]
)
def test_what_is_left_out_or_put_elsewhere_is_named(tmp_path: Path, harm: str) -> None:
    directory = tmp_path / "audit"
    log = filled(directory, 2500)
    head = log.append("decision", "M. Keller", {"last": 1}).digest
    log.close()
    paths = paths_of(directory)
    assert len(paths) >= 3
    lines = paths[1].read_bytes().splitlines(keepends=True)

    if harm == "left out":
        paths[1].write_bytes(b"".join(lines[:5] + lines[6:]))
    elif harm == "swapped":
        paths[1].write_bytes(b"".join([*lines[:5], lines[6], lines[5], *lines[7:]]))
    elif harm == "cut off":
        paths[1].write_bytes(b"".join(lines[:-1]))
    elif harm == "first file":
        paths[0].unlink()
        paths[0].write_bytes(b"")
    elif harm == "middle file":
        paths[1].unlink()
    else:
        for path in paths:
            path.unlink()
        filled(directory, 3).close()
        told = command(tmp_path, "verify", "--head", head)
        assert told.returncode == 1
        assert "written anew" in told.stdout
        return

    told = command(tmp_path, "verify")
    assert told.returncode == 1
    assert "NOT VERIFIED: audit-0000000" in told.stdout


def test_log_stays_within_its_size_and_verifiable(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 6000)
    log.close()

    size = sum(path.stat().st_size for path in paths_of(tmp_path / "audit"))
    verdict = verify(tmp_path / "audit")
    first = json.loads(paths_of(tmp_path / "audit")[0].read_text().splitlines()[0])

    assert size < 1.3 * (1 << 20)
    assert verdict.segments == SEGMENTS
    assert verdict.fault == ""
    assert first["what"] == "continues", "the oldest files went"
    assert any(entry.what == "removed" for entry in newest(tmp_path / "audit", 6000))
    assert json.loads(newest(tmp_path / "audit", 1)[0].detail) == {"number": 5999}


def test_torn_end_is_cut_off_and_told(tmp_path: Path) -> None:
    """As a power loss leaves it, at every byte of the last entry: what was fsynced before is there, and only that."""
    directory = tmp_path / "audit"
    filled(directory, 3).close()
    path = paths_of(directory)[0]
    whole = path.read_bytes()
    begins = whole[:-1].rfind(b"\n") + 1

    for end in range(begins, len(whole)):
        path.write_bytes(whole[:end])
        log = Segments(directory, 1 << 20, at)
        log.append("decision", "M. Keller", {"after": end})
        log.close()
        entries = [(entry.what, json.loads(entry.detail)) for entry in reversed(newest(directory, 100))]
        assert verify(directory).fault == "", end
        kept = [detail for what, detail in entries if what == "decision"]
        assert kept == [{"number": 0}, {"number": 1}, {"after": end}]
        assert ("cut" in dict(entries)) == (end > begins)


@pytest.mark.parametrize("size", [0, 17])
def test_a_next_file_that_the_power_took_is_begun_anew(tmp_path: Path, size: int) -> None:
    directory = tmp_path / "audit"
    filled(directory, 3).close()
    (directory / "audit-00000002.jsonl").write_bytes(b"x" * size)

    log = Segments(directory, 1 << 20, at)
    log.append("decision", "M. Keller", {"after": 1})
    log.close()

    assert verify(directory).fault == ""
    assert json.loads(newest(directory, 1)[0].detail) == {"after": 1}


def test_two_consoles_do_not_write_one_log(tmp_path: Path) -> None:
    first = filled(tmp_path / "audit", 1)

    with pytest.raises(OSError, match="another console"):
        Segments(tmp_path / "audit", 1 << 20, at).append("decision", "", {})

    first.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path) -> Path:
    """Somebody else's file that takes every block."""
    path = place / "somebody-elses"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return path


def audited(start: Start, cloud: CloudServer, tmp_path: Path, state_dir: Path) -> Console:
    return start(
        CONSOLE_STATE_DIR=str(state_dir), CONSOLE_CLOUD_API_URL=f"http://127.0.0.1:{cloud.port}",
        CONSOLE_CLOUD_API_TOKEN_FILE=str(tmp_path / "token"),
    )  # fmt: skip


def written(state_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    entries = reversed(newest(state_dir / "audit", 1000))
    return [(entry.what, json.loads(entry.detail)) for entry in entries]


def test_decision_is_written_down_with_its_outcome(start: Start, cloud: CloudServer, tmp_path: Path) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    console = audited(start, cloud, tmp_path, tmp_path / "state")

    console.post("/api/work-orders/lw-1/reject", {"reason": "serviced today"})
    console.post("/api/work-orders/lw-1/approve", {})

    entries = written(tmp_path / "state")
    decisions = [detail for what, detail in entries if what == "decision"]
    outcomes = [detail for what, detail in entries if what == "outcome"]
    assert [(one["verb"], one["reference"]) for one in decisions] == [("reject", "lw-1"), ("approve", "lw-1")]
    assert decisions[0]["body"] == {"reason": "serviced today"}
    assert [one["outcome"] for one in outcomes] == ["taken", "refused"]
    digests = [
        entry.digest for entry in reversed(newest(tmp_path / "state/audit", 1000)) if entry.what == "decision"
    ]
    assert [one["of"] for one in outcomes] == digests
    assert cloud.stand_in.headers[0]["x-linewatch-audit"] == digests[0], "the cloud can keep it as a witness"
    told = command(tmp_path / "state", "verify")
    assert (told.returncode, "verified: " in told.stdout) == (0, True)
    assert "serviced today" in command(tmp_path / "state", "list").stdout


def test_full_disk_refuses_decisions_and_the_page_goes_on(
    start: Start, cloud: CloudServer, tmp_path: Path, small_disk: Path
) -> None:
    references = [f"lw-{number}" for number in range(60)]
    for reference in references:
        cloud.stand_in.add(work_order(reference))
    console = audited(start, cloud, tmp_path, small_disk)
    taking = fill(small_disk)

    # The last block has room for a few; then one is refused, and every one after it.
    answers = [console.post(f"/api/work-orders/{one}/approve", {"reason": "x" * 400}) for one in references]

    statuses = [answer.status_code for answer in answers]
    taken = statuses.index(503)
    assert set(statuses[taken:]) == {503}
    assert "audit log can't be written (No space left on device)" in answers[-1].json()["error"]
    assert answers[-1].json()["outcome"] == "not_sent"
    assert len(cloud.stand_in.decided) == taken, "nothing is decided that is not written down"
    assert console.http.get("/").status_code == 200
    assert "linewatch_console_audit_failing 1.0" in console.http.get("/metrics").text

    taking.unlink()

    assert console.post(f"/api/work-orders/{references[-1]}/approve", {}).status_code == 200
    assert verify(small_disk / "audit").fault == ""
    entries = written(small_disk)
    decided = [detail["reference"] for what, detail in entries if what == "decision"]
    assert decided == [*references[:taken], references[-1]]
    outcomes = [detail["outcome"] for what, detail in entries if what == "outcome"]
    assert outcomes == ["taken"] * len(decided), "what the disk did not take at once is made up for"


def test_state_directory_that_can_not_be_written_is_told_at_the_decision(
    start: Start, cloud: CloudServer, tmp_path: Path
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    (tmp_path / "state").write_text("no directory")
    console = audited(start, cloud, tmp_path, tmp_path / "state")

    answer = console.post("/api/work-orders/lw-1/approve", {})

    assert answer.status_code == 503
    assert "CONSOLE_STATE_DIR" in answer.json()["error"]
    assert cloud.stand_in.decided == []


def test_decision_whose_answer_never_came_is_named_after_a_kill(
    start: Start, cloud: CloudServer, tmp_path: Path
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    cloud.stand_in.hangs = True
    console = audited(start, cloud, tmp_path, tmp_path / "state")

    with unanswered(console, cloud, {}):
        console.process.kill()
        console.process.wait(DEADLINE_S)
    assert [what for what, _ in written(tmp_path / "state")][-1] == "decision"

    again = start(CONSOLE_STATE_DIR=str(tmp_path / "state"))

    assert again.http.get("/healthz").status_code == 200
    outcome = next(detail for what, detail in reversed(written(tmp_path / "state")) if what == "outcome")
    assert outcome["outcome"] == "not_known"
    assert len(cloud.stand_in.decided) == 1, "nobody repeated it"
    assert verify(tmp_path / "state/audit").fault == ""
    console.process.returncode = 0  # the fixture expects a clean end; this one was killed


def test_strangers_can_not_push_the_decisions_out_of_the_log(signing: Console) -> None:
    signing.sign_in("admin", PASSWORDS["admin"])

    with stranger(signing.url) as guesser:
        for number in range(150):
            form = {"name": f"name {number // 4}", "password": "guess"}
            guesser.post("/login", data=form, headers={"Origin": signing.url})

    told = signing.http.get("/api/audit?limit=1000").json()
    assert [entry["what"] for entry in told["entries"]].count("sign_in_failed") == MOST_NOISE_PER_HOUR
    assert told["verified"]


def test_log_that_was_changed_is_told_on_the_page_and_written_on(
    start: Start, cloud: CloudServer, tmp_path: Path
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    filled(tmp_path / "state/audit", 3).close()
    path = paths_of(tmp_path / "state/audit")[0]
    path.write_text(path.read_text().replace("M. Keller", "M. Kellen", 1))
    console = audited(start, cloud, tmp_path, tmp_path / "state")

    assert console.post("/api/work-orders/lw-1/approve", {}).status_code == 200

    told = command(tmp_path / "state", "verify")
    assert told.returncode == 1
    assert "audit-00000001.jsonl: entry 1 was changed" in told.stdout


def test_where_there_is_no_log_it_is_said(tmp_path: Path) -> None:
    told = command(tmp_path, "verify")

    assert (told.returncode, "there is no audit log" in told.stderr) == (2, True)
