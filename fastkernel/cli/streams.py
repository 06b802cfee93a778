"""Standard output and error, which may be closed, full, or lack a character."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class Stream(io.TextIOBase):
    """A standard stream that fails no work: what went wrong is kept and what follows is dropped.

    Parameters
    ----------
    stream : text file or None
        Where to write; None, as Python has it, where the process was started with it closed.

    Attributes
    ----------
    problem : OSError or None
        Why something that was written is lost.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.problem: OSError | None = None

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        """The encoding of the stream behind."""
        return getattr(self._stream, "encoding", None)

    def write(self, text: str) -> int:
        """Write, with escapes for the characters that the encoding lacks."""
        if self._stream is None:
            self.problem = OSError("it is closed")
        elif self.problem is None:
            if self.encoding is not None:
                text = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            try:
                self._stream.write(text)
            except OSError as problem:
                self.problem = problem
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write the contents of a file; raise OSError where they do not all get through."""
        buffer = getattr(self._stream, "buffer", None)
        if buffer is None or self.problem is not None:
            raise self.problem or OSError("it is closed")
        try:
            self._stream.flush()  # type: ignore[union-attr]
            buffer.write(data)
            buffer.flush()
        except OSError as problem:
            self.problem = problem
            raise

    def flush(self) -> None:
        """Flush the stream behind."""
        if self._stream is not None and self.problem is None:
            try:
                self._stream.flush()
            except OSError as problem:
                self.problem = problem

    def isatty(self) -> bool:
        """Tell whether the stream behind is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the stream behind, or raise as a closed file does."""
        if self._stream is None:
            msg = "it is closed"
            raise io.UnsupportedOperation(msg)
        return self._stream.fileno()

    def forget(self) -> None:
        """Let Python's last flush, at exit, go nowhere: it would fail as the first one did."""
        if self._stream is not None and self.problem is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def standard_streams() -> Iterator[tuple[Stream, Stream]]:
    """Put a `Stream` in the place of standard output and of standard error for a while."""
    if None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        _occupy()
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield out, err
        finally:
            out.flush()
            err.flush()
            out.forget()
            err.forget()


def _occupy() -> None:
    # A file that is opened next would get the number of a closed standard stream, and whatever
    # a library writes to that number.
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
