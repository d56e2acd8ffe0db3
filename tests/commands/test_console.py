"""What a terminal and a spreadsheet get of names that mean something to them."""

from __future__ import annotations

import csv
import io
import logging
import re
import threading
import time
from pathlib import Path

import pytest

from mgc.cache.messages import csv_row, printable
from mgc.commands import console
from mgc.commands.console import Listing, Terminal, print_list, print_table, to_stderr, to_stdout

NAMES = ["cd:cd:7.mp3", "02 [Live at :rose: hall].mp3", "[red]x[/red]", "[/]", "a\\[b", "https://x.y/:cd:", "100%"]
HOSTILE = "a\x1b[2J\x1b]0;t\x07b\x9bc\u202ed\x7f"


@pytest.mark.parametrize("name", NAMES)
def test_tables_print_names_verbatim(capsys, name: str) -> None:
    print_table(name, ("id", name), [(name, name)])
    assert capsys.readouterr().out.count(name) == 4
    print_list([{"id": name}], ["id"], Listing.TABLE, empty="none")
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_progress_bar_prints_names_verbatim(capsys, monkeypatch, name: str) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with Terminal().progress() as steps:
        steps(name, 1, 2, name)
        to_stderr(f"remark {name}")
    text = capsys.readouterr().err
    assert f"remark {name}" in text
    assert text.count(name) >= 3


def test_progress_bar_starts_with_the_true_total(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with Terminal().progress() as steps:
        steps("extract", 0, 240)
        steps("extract", 240, 240)
    text = capsys.readouterr().err
    assert "0/240" in text
    assert "0/100" not in text


def test_progress_lines_end_with_the_last_state_of_every_step(capsys) -> None:
    with Terminal().progress() as steps:
        for done in range(6):
            steps("verify", done, 5)
        steps("train", 0, 100)
        steps("train", 8, 100, "loss 0.3")  # ends early
        steps("evaluate", 16, 48)
        steps("evaluate", 32, 48)
        steps("evaluate", 48, 48)
        steps("evaluate", 48, 48)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "verify: 0 of 5",
        "verify: 5 of 5",
        "train: 0 of 100",
        "train: 8 of 100, loss 0.3",
        "evaluate: 16 of 48",
        "evaluate: 48 of 48",
    ]


def test_progress_of_a_step_that_begins_again_counts_its_own_time(capsys, monkeypatch) -> None:
    """As the extraction of the new song does in the demo, after that of the collection."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    lines = console._ProgressLines()
    for second, (done, total) in enumerate([(0, 240), (240, 240), (0, 1), (1, 1), (0, 1), (1, 1)]):
        now[0] = 10.0 * second
        lines("extract", done, total)
    printed = [line for line in capsys.readouterr().err.splitlines() if "took" in line]
    assert printed == [f"extract: {n} of {n}; took 10.0 s" for n in (240, 1, 1)]


def test_progress_lines_go_on_during_a_long_unit_of_work_and_stop_with_it(capsys, monkeypatch) -> None:
    monkeypatch.setattr(console, "LOG_INTERVAL_S", 0.5)
    with Terminal().progress() as steps:
        steps("extract", 0, 240)
        time.sleep(2.5)
        steps("extract", 240, 240)
        time.sleep(1.5)
    first, *repeated, last = capsys.readouterr().err.splitlines()
    assert (first, last.partition(";")[0]) == ("extract: 0 of 240", "extract: 240 of 240")
    assert len(repeated) in (1, 2)
    assert all(re.fullmatch(r"extract: 0 of 240; \d\.\d s so far", line) for line in repeated)
    threads = threading.active_count()
    interrupted = Terminal().progress()
    steps = interrupted.__enter__()
    steps("extract", 0, 240)
    steps("extract", 48, 240)
    assert not interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert threading.active_count() == threads
    assert capsys.readouterr().err == "extract: 0 of 240\n"  # after an interruption, nothing but its own line


def test_control_characters_are_escaped_in_tables_remarks_and_logs(capsys, monkeypatch) -> None:
    print_table(HOSTILE, (HOSTILE,), [(HOSTILE,), ("line\nline",)])
    to_stdout(HOSTILE)
    to_stderr(f"two\nlines {HOSTILE}")
    console.log_to_stderr(True)
    logging.getLogger("mgc").warning("track %s", HOSTILE)
    shown = capsys.readouterr()
    assert not set("\x1b\x07\x9b\u202e\x7f") & set(shown.out + shown.err)
    assert shown.out.count("a\\u001b[2J\\u001b]0;t\\u0007b\\u009bc\\u202ed\\u007f") == 4
    assert "line\\u000aline" in shown.out
    assert "two\nlines a\\u001b" in shown.err
    assert "track a\\u001b" in shown.err
    assert printable("caf\u00e9 \U0001f339\tx") == "caf\u00e9 \U0001f339\\u0009x"


def test_csv_escapes_formulas_and_keeps_numbers(capsys) -> None:
    cells = ["=HYPERLINK(1)", "+44.mp3", "-x", "@x", "\t=1", "rock", "1-2", ""]
    print_list([{"id": cell, "n": -0.5} for cell in cells], ["id", "n"], Listing.CSV, empty="none")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == [f"'{cell}" for cell in cells[:5]] + cells[5:]
    assert {row["n"] for row in rows} == {"-0.5"}
    assert csv_row({"a": None, "b": True, "c": ["=x"]}) == {"a": None, "b": True, "c": ["=x"]}


def test_drop_accepts_ids_printed_in_a_table(call, tmp_path: Path) -> None:
    for name in ("cd:cd:7.mp3", "02 [Live at :rose: hall].mp3"):
        (tmp_path / name).write_text("junk")
    store = tmp_path / "s.zarr"
    call("extract", tmp_path, "-o", store, "--features", "mel", "--workers", 0, "--max-failures", "100%")
    shown = call("store", "failures", store).out
    assert "cd:cd:7.mp3 " in shown
    assert "02 [Live at :rose: hall].mp3 " in shown
    assert call("store", "drop", store, "02 [Live at :rose: hall].mp3").code == 0


def test_stdout_in_another_encoding_is_accepted(mgc, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,path,genres\na,a,caf\u00e9\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "caf\\xe9" in mgc("manifest", tmp_path / "t.csv").stdout
