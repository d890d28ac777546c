"""The log has time, level and rank; the last line of a job has none of them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from job.runtime import console
from tests.launch.running import wait_until
from tests.support.launch import ROOT, TRAIN

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.mark.parametrize(("rank", "shown"), [("0", "WARNING"), ("3", "WARNING rank 3")])
def test_every_line_has_time_and_level_and_any_rank_but_0(
    rank: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    console.log.warning("one\ntwo")
    assert re.fullmatch(rf"{TIME} {shown} one\n{TIME} {shown} two\n", capsys.readouterr().err)


def test_stdout_escapes_what_its_encoding_lacks_and_json_stays_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    written, text = io.BytesIO(), "é 日 😀 \udcff"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    with pytest.raises(UnicodeEncodeError):
        sys.stdout.write(text)
    console.escape_on_stdout()
    sys.stdout.write(json.dumps(text, ensure_ascii=False))
    assert written.getvalue() == b'"\xe9 \\u65e5 \\ud83d\\ude00 \\udcff"'
    assert json.loads(written.getvalue().decode("latin-1")) == text


def test_a_log_on_a_full_disk_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    stream = io.TextIOWrapper(full, write_through=True)
    with pytest.raises(OSError, match="No space left"):
        stream.write("lost")
    monkeypatch.setattr(sys, "stderr", console.TolerantStream(stream))
    console.log.info("lost")
    monkeypatch.undo()
    full.close()


def test_slow_work_is_announced(logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "NOTICE_SECONDS", 0.1)
    with console.notice("reading the data"):
        wait_until(lambda: logged != [])
    assert logged == ["INFO reading the data ..."]


def test_fast_work_is_not_announced(logged: list[str]) -> None:
    before = set(threading.enumerate())
    with console.notice("reading the data"):
        [timer] = set(threading.enumerate()) - before
    timer.join(60)
    assert not timer.is_alive() and logged == []


@pytest.mark.parametrize("requested", ["", "1"])
def test_the_traceback_of_a_rejection_is_shown_on_request(requested: str) -> None:
    environ = {**os.environ, "MUSTER_TRACEBACK": requested}
    done = subprocess.run(
        [sys.executable, str(TRAIN), "--seed", "x"], env=environ, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    *before, last = done.stderr.splitlines()
    assert last == "error: --seed takes an integer, not 'x'"
    assert any("Traceback" in line for line in before) == (requested == "1")
