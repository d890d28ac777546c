"""The job's output goes to the terminal as ever, and a copy into a file.

Where the launcher's own stream is a terminal the job gets a terminal too (a pseudo-terminal), so that its progress bars
stay as they are; in the file a line that was rewritten is there once, as it was at last.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

JOIN_SECONDS = 5.0
"""How long the rest of the output is waited for after the job's end."""


@dataclass
class Output:
    """What the job is started with; None: the launcher's own streams."""

    stdout: int | None = None
    stderr: int | None = None

    def close(self) -> None:
        """To be called once the job has been started: the copy ends when nobody can write any more."""
        for handle in {self.stdout, self.stderr} - {None}:
            with contextlib.suppress(OSError):
                os.close(handle)  # type: ignore[arg-type]
        self.stdout = self.stderr = None


@dataclass
class _Lines:
    """Whole lines of one stream, for a file that several write to."""

    file: BinaryIO
    lock: threading.Lock
    rest: bytes = field(default=b"")

    def add(self, data: bytes) -> None:
        *lines, rest = (self.rest + data).split(b"\n")
        self._write(b"".join(_last_version(line) + b"\n" for line in lines))
        cut = rest.rfind(b"\r", 0, -1)  # what was rewritten since need not be kept
        self.rest = rest[max(cut, 0) :]

    def end(self) -> None:
        if last := _last_version(self.rest):
            self._write(last + b"\n")

    def _write(self, data: bytes) -> None:
        with self.lock, contextlib.suppress(OSError):  # a full disk must not end the job
            self.file.write(data)
            self.file.flush()


def _last_version(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


@contextlib.contextmanager
def copied(path: Path | None) -> Iterator[Output]:
    """Streams for the job whose content is copied to `path`, which is appended to; none where `path` is None."""
    if path is None:
        yield Output()
        return
    with path.open("ab") as file:
        lock = threading.Lock()
        targets = [sys.stdout.fileno(), sys.stderr.fileno()]
        if os.path.sameopenfile(*targets):  # one stream for both keeps their order
            targets.pop()
        pairs = [_pair(target) for target in targets]
        threads = [
            threading.Thread(target=_copy, args=(read, target, _Lines(file, lock)), daemon=True)
            for (read, _), target in zip(pairs, targets, strict=True)
        ]
        for thread in threads:
            thread.start()
        output = Output(pairs[0][1], pairs[-1][1])
        try:
            yield output
        finally:
            output.close()
            for thread in threads:
                thread.join(JOIN_SECONDS)


def _pair(target: int) -> tuple[int, int]:
    """An end to read from, and one for the job to write to that is what `target` is: a terminal or not."""
    if not os.isatty(target):
        return os.pipe()
    import fcntl
    import termios

    read, write = os.openpty()
    settings = termios.tcgetattr(write)
    settings[1] &= ~termios.OPOST  # the real terminal turns line breaks into what it needs
    termios.tcsetattr(write, termios.TCSANOW, settings)
    fcntl.ioctl(write, termios.TIOCSWINSZ, fcntl.ioctl(target, termios.TIOCGWINSZ, bytes(8)))
    return read, write


def _copy(read: int, target: int, lines: _Lines) -> None:
    while data := _read(read):
        with contextlib.suppress(OSError):  # nobody reads on: the file still gets it
            _write_all(target, data)
        lines.add(data)
    lines.end()
    os.close(read)


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 16)
    except OSError:  # a pseudo-terminal's end
        return b""


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
