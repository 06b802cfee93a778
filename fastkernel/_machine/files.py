"""Files that are written whole or not at all."""

import os
import secrets
import stat
from pathlib import Path

# Windows would change the ends of lines.
BINARY = getattr(os, "O_BINARY", 0)


def beside(path: Path) -> Path:
    """Return a name for what is to become a file, in its folder.

    So the renaming stays within one file system; short, because the file's own name may be as
    long as names can be.
    """
    return path.parent / f".fastkernel-{secrets.token_hex(8)}"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that at any moment the old one or the new one stands there, whole.

    A file that is replaced keeps who may read and write it; a link keeps pointing to it. What is
    no file, such as a pipe, is written to as it is.

    Raises
    ------
    OSError
        If it cannot be written; what stood there before still does.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = beside(target)
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        # Never, not even for a moment, open to more readers than the file it replaces.
        first = 0o666 if mode is None else mode & 0o600
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, first)
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
