# SPDX-License-Identifier: Apache-2.0
import io
import os
import re

from cimingclient.osc import progress


def screen(written: str) -> list[str]:
    """What a terminal shows, as far as the sequences that are used go."""
    lines, row = [""], 0
    for match in re.finditer(r"\x1b\[(\d*)([AJK])|(\n)|([^\x1b\n\r]+)", written):
        count, code, newline, text = match.groups()
        if code == "A":
            row -= int(count)
        elif code == "J":
            del lines[row + 1 :]
            lines[row] = ""
        elif newline:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text:
            lines[row] = text
    return lines


def test_a_terminal_shows_one_line_per_row() -> None:
    stream = io.StringIO()
    board = progress.Terminal(stream)
    for done in (0, 50, 100):
        board.show(
            [
                progress.Row("zone-a", "running", "upload", done, 100),
                progress.Row("b", "retrying", "upload", 10, 100, note="attempt 2: \x1b[2Jbusy"),
            ]
        )
    assert screen(stream.getvalue()) == [
        "zone-a  running    upload    100 %  100 B of 100 B",
        "b       retrying   upload     10 %  10 B of 100 B  attempt 2: ?[2Jbusy",
        "",
    ]


def test_a_line_never_wraps_and_the_screen_never_scrolls() -> None:
    stream = io.StringIO()
    board = progress.Terminal(stream)
    rows = [progress.Row(f"cloud-{number}", "running", note="x" * 200) for number in range(50)]
    board.show(rows)
    board.show(rows)
    shown = screen(stream.getvalue())
    assert len(shown) == 24 and max(map(len, shown)) == 79
    assert shown[-2] == "… and 28 more"


def test_rows_may_go() -> None:
    stream = io.StringIO()
    board = progress.Terminal(stream)
    board.show([progress.Row("a", "running"), progress.Row("b", "running")])
    board.show([progress.Row("a", "success")])
    assert [line for line in screen(stream.getvalue()) if line] == ["a  success"]


def test_sizes_without_an_end_are_shown_as_they_are() -> None:
    assert progress.Row("upload", "sending", done=3 << 29).line(6).split() == [
        "upload",
        "sending",
        "1.5",
        "GiB",
    ]


def test_a_log_has_a_line_for_each_tenth_and_each_note() -> None:
    stream = io.StringIO()
    board = progress.Log(stream)
    for done in range(100):
        board.show([progress.Row("zone-sync", "running", "", done, 100, pace=f"{done} of 100 images")])
    board.show([progress.Row("zone-sync", "running", "", 99, 100, note="is being cancelled", pace="x")])
    lines = stream.getvalue().splitlines()
    assert [line.rsplit("  ", 1)[1] for line in lines] == [
        *(f"{done} of 100 images" for done in range(0, 100, 10)),
        "is being cancelled",
    ]


def test_nobody_reading_does_not_stop_the_work() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    board = progress.board(stream)
    board.show([progress.Row("a", "running")])
    board.show([progress.Row("a", "success")])
