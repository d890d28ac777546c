"""Copies the job's output to a file, in addition to the terminal.

If the launcher's own stream is a terminal, the job gets a pseudo-terminal, so that its progress bars still work. The
file contains only the last version of a line that was rewritten.
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
"""How long to wait for the rest of the output after the job has ended."""


@dataclass
class Output:
    """The job's output streams; None: the launcher's own."""

    stdout: int | None = None
    stderr: int | None = None

    def close(self) -> None:
        """Call it after the job has been started: copying ends when the last writer closes the stream."""
        for handle in {self.stdout, self.stderr} - {None}:
            with contextlib.suppress(OSError):
                os.close(handle)  # type: ignore[arg-type]
        self.stdout = self.stderr = None


@dataclass
class _Lines:
    """Whole lines of one stream, for a file that several streams write to."""

    file: BinaryIO
    lock: threading.Lock
    rest: bytes = field(default=b"")

    def add(self, data: bytes) -> None:
        *lines, rest = (self.rest + data).split(b"\n")
        self._write(b"".join(_last_version(line) + b"\n" for line in lines))
        cut = rest.rfind(b"\r", 0, -1)  # earlier versions of a rewritten line are dropped
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
    """Streams for the job whose content is appended to `path`; the launcher's own if `path` is None."""
    if path is None:
        yield Output()
        return
    with path.open("ab") as file:
        lock = threading.Lock()
        targets = [sys.stdout.fileno(), sys.stderr.fileno()]
        if os.path.sameopenfile(*targets):  # a single stream keeps stdout and stderr in order
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
    """A pipe (read end, write end), or a pseudo-terminal if `target` is a terminal."""
    if not os.isatty(target):
        return os.pipe()
    import fcntl
    import termios

    read, write = os.openpty()
    settings = termios.tcgetattr(write)
    settings[1] &= ~termios.OPOST  # the real terminal converts line breaks
    termios.tcsetattr(write, termios.TCSANOW, settings)
    fcntl.ioctl(write, termios.TIOCSWINSZ, fcntl.ioctl(target, termios.TIOCGWINSZ, bytes(8)))
    return read, write


def _copy(read: int, target: int, lines: _Lines) -> None:
    while data := _read(read):
        with contextlib.suppress(OSError):  # the terminal may be closed; the file still gets the output
            _write_all(target, data)
        lines.add(data)
    lines.end()
    os.close(read)


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 16)
    except OSError:  # end of a pseudo-terminal
        return b""


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
