# SPDX-License-Identifier: Apache-2.0
from linewatch_console.inspection import Part, Skipped
from linewatch_console.wall import MOST_STATIONS, STRIP_PARTS, TREND_WINDOWS, Wall


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def part(
    sequence: int,
    result: str = "OK",
    epoch: int = 1,
    event_id: str = "",
    taken_at: float = 0.0,
    **more: object,
) -> Part:
    return Part(
        event_id or f"{epoch}-{sequence}", f"part {sequence}", epoch, sequence, taken_at, result, **more
    )  # type: ignore[arg-type]


def test_event_that_comes_twice_counts_once() -> None:
    wall = Wall(Clock())

    assert wall.take("line-1", "station-1", part(1, "NG"))
    assert not wall.take("line-1", "station-1", part(1, "NG"))

    assert wall.snapshot()[0]["counts"]["NG"] == 1


def test_late_event_counts_but_never_replaces_a_newer_one() -> None:
    wall = Wall(Clock())
    wall.take("line-1", "station-1", part(5, taken_at=50.0))

    wall.take("line-1", "station-1", part(4, "NG", taken_at=40.0))

    tile = wall.snapshot()[0]
    assert tile["last"]["part_id"] == "part 5"
    assert tile["counts"]["NG"] == 1


def test_station_whose_count_begins_anew_is_shown() -> None:
    wall = Wall(Clock())
    wall.take("line-1", "station-1", part(500, epoch=9, taken_at=50.0))

    wall.take("line-1", "station-1", part(1, epoch=2, event_id="after a wiped disk", taken_at=60.0))

    assert wall.snapshot()[0]["last"]["part_id"] == "part 1"


def test_clock_that_jumps_back_a_year_makes_no_late_event_the_newest() -> None:
    year_s = 365 * 86400.0
    wall = Wall(Clock())
    wall.take("line-1", "station-1", part(4, taken_at=2 * year_s))
    wall.take("line-1", "station-1", part(6, taken_at=year_s))

    wall.take("line-1", "station-1", part(5, "NG", taken_at=2 * year_s))

    tile = wall.snapshot()[0]
    assert tile["last"]["part_id"] == "part 6"
    assert tile["counts"]["NG"] == 1


def test_page_that_joins_sees_every_part_once() -> None:
    wall = Wall(Clock())
    wall.take("line-1", "station-1", part(1))
    changes = wall.take_changes()
    wall.take("line-1", "station-1", part(2))

    changes += wall.take_changes()

    assert [point["part_id"] for change in changes for point in change["new"]] == ["part 1", "part 2"]
    assert [point["part_id"] for point in wall.snapshot()[0]["history"]] == ["part 1", "part 2"]
    assert wall.take_changes() == []


def test_rate_is_told_after_a_while_and_falls_when_the_line_stands_still() -> None:
    clock = Clock()
    wall = Wall(clock)
    wall.take("line-1", "station-1", part(0))
    assert wall.take_changes()[0]["rate_per_minute"] is None
    for sequence in range(1, 30):
        clock.now += 1
        wall.take("line-1", "station-1", part(sequence))
    assert wall.take_changes()[0]["rate_per_minute"] == round(30 * 60 / 29, 1)

    clock.now += 120

    assert wall.take_changes()[0]["rate_per_minute"] == 0


def test_latency_is_the_median_of_the_last_hundred() -> None:
    wall = Wall(Clock())
    for sequence in range(150):
        wall.take("line-1", "station-1", part(sequence, frame_to_verdict_s=9.0 if sequence < 50 else 0.02))

    assert wall.snapshot()[0]["latency_p50_ms"] == 20.0


def test_memory_is_bounded() -> None:
    wall = Wall(Clock())
    for sequence in range(500):
        wall.take("line-1", "station-1", part(sequence))
        wall.take("line-2", "machine-1", part(sequence, time_to_failure={"p50": 3.0}))
    for number in range(200):
        wall.take("line-3", f"station-{number}", part(1))

    tiles = wall.snapshot()

    assert len(tiles) == MOST_STATIONS
    assert [tiles[0]["kind"], len(tiles[0]["history"])] == ["camera", STRIP_PARTS]
    assert [tiles[1]["kind"], len(tiles[1]["history"])] == ["sensor", TREND_WINDOWS]


def test_skipped_parts_are_counted() -> None:
    wall = Wall(Clock())

    wall.take("line-1", "station-1", Skipped(3, "replaced_by_newer"))

    assert wall.snapshot()[0]["counts"]["skipped"] == 3


def test_part_without_picture_of_its_own_shows_the_latest_unmarked() -> None:
    wall = Wall(Clock())

    wall.take("line-1", "station-1", part(1, "NG", regions=[{"label": "crack"}]))

    last = wall.snapshot()[0]["last"]
    assert last["frame"] == "/evidence/latest/line-1/station-1.jpg?part=1-1"
    assert last["regions"] == []  # it may be the next part's picture already
