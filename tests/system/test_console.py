"""Colour only where it is wanted, lines that a log can hold, times as people say them."""

import io
import logging
import re
import threading

import pytest
from made_runs import make_run

from bench.analysis.results import load
from bench.api import BenchError
from bench.report.words.terminal import comparison_table
from bench.system.console import Console, duration, folded, in_colour, styled, unstyled


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "env", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),  # as no-color.org has it
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(stream, env, expected, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert in_colour(stream) is expected


def test_what_stands_out_is_better_than_all_others_and_takes_no_room(tmp_path):
    for algo, level in (("low", 0.5), ("high", 0.8)):
        make_run(tmp_path, algo, 0, level)
    results = load(tmp_path)
    plain, coloured = comparison_table(results), comparison_table(results, colour=True)
    assert unstyled(coloured) == plain
    (line,) = [line for line in coloured.splitlines() if "\033" in line]
    assert line.startswith("high ")
    make_run(tmp_path, "rival", 0, 0.8)
    assert "\033" not in comparison_table(load(tmp_path), colour=True)


def test_a_long_name_has_a_line_of_its_own_and_is_never_broken(tmp_path):
    for steps in (10_000, 60_000):
        make_run(tmp_path, "fomaml", 0, 0.8, cost=10, meta_steps=steps, beside=4, run_id=f"fomaml-{steps}")
    lines = comparison_table(load(tmp_path)).splitlines()
    assert max(map(len, lines)) <= 80
    assert "beside N: timed while up to N other runs were under way on this machine" in lines
    for steps in (10_000, 60_000):
        place = next(i for i, line in enumerate(lines) if line == f"fomaml (meta_steps={steps})")
        assert re.match(r" +1  0\.\d{4} ± ", lines[place + 1])


def test_quiet_leaves_warnings_and_the_log_gets_all_of_it(tmp_path, capsys):
    console, log = Console(), tmp_path / "log"
    console.open(True, log)
    console.say(styled("table\n\nline", "best"))
    console.note("started")
    console.warn("careful")
    logging.getLogger("bench").warning("from a module")
    console.complain("ended")
    console.close()
    logging.getLogger("bench").info("afterwards")
    out, err = capsys.readouterr()
    assert out == ""
    assert "WARNING: careful" in err
    assert err.endswith("from a module\nrun_bench.py: ended\n")
    said = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert said == ["table", "line", "started", "WARNING: careful", "WARNING: from a module", "ended"]


def test_text_of_plugins_forges_no_line_and_moves_no_cursor(capsys):
    console = Console()
    console.complain("odd\n[1/1] maml: 0.99\r\x1b[2J")
    console.warn("odd\x1b[1A\nmore")
    err = capsys.readouterr().err
    assert err.startswith("run_bench.py: odd [1/1] maml: 0.99 \ufffd[2J\n")
    assert "\x1b" not in err


def test_a_log_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BenchError, match=r"--log-file .* cannot be written"):
        Console().open(False, tmp_path / "nowhere" / "log")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (9000, "2 h 30 min")]
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_lines_break_between_words_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = "5-way 1-shot, plain: a_name_longer_than_a_whole_line_of_40_columns,"
    text += " 0.5240 ± 0.0409 and some more well-known words"
    lines = folded(text).splitlines()
    assert [line.strip() for line in lines] == [
        "5-way 1-shot, plain:",
        "a_name_longer_than_a_whole_line_of_40_columns,",
        "0.5240 ± 0.0409 and some more",
        "well-known words",
    ]
    assert folded("short\n\n" + styled("x" * 40, "best")) == "short\n\n" + styled("x" * 40, "best")


def test_a_terminal_gets_lines_that_fit_and_a_log_whole_ones(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    line = "word " * 30
    Console().say(line.strip())
    assert capsys.readouterr().out == f"{line.strip()}\n"
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    Console().say(line.strip())
    assert max(map(len, screen.getvalue().splitlines())) <= 80


def test_what_takes_more_than_a_moment_is_told_on_stderr(monkeypatch, capsys):
    console, told = Console(), threading.Event()
    monkeypatch.setattr("builtins.print", lambda *line, file, flush: (file.write(*line), told.set()))
    monkeypatch.setattr("bench.system.console.MOMENT_S", 60.0)
    with console.doing("done at once"):
        pass
    monkeypatch.setattr("bench.system.console.MOMENT_S", 0.02)
    with console.doing("reading the data set"):
        assert told.wait(60)
    assert capsys.readouterr() == ("", "reading the data set")
