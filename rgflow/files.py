"""Files that are whole or not there: atomic writing, a lock, sweeping up after a kill; a probe of folders."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it when the block ends well: a kill leaves the old file whole.

    Raises:
        OSError: from the block or the renaming; the temporary file is removed and the old one untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())  # else a power cut could keep the new name without the new bytes
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the file `.lock` in a folder, so that two runs do not write to it at once.

    The system lets go of it when the process dies, however that happens; the file itself stays. Processes forked from
    this one do not hold it. Where the system or the file system has no such locks, nothing is checked.

    Raises:
        ValueError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(f"another process trains in {folder}; wait for it, or use another folder") from None
        yield


def sweep(folders: Iterable[Path]) -> None:
    """Removes what a kill in the middle of a `replacing` has left in these folders."""
    for folder in folders:
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)


def check_folder(folder: Path | None) -> None:
    """Makes sure that a folder, which need not exist yet, can be written; leaves nothing behind.

    Raises:
        OSError: it cannot, or it is a file.
    """
    if folder is None:
        return
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".rgflow-") as probe:  # a name of its own on every node
            probe.write(b"rgflow")
            probe.flush()
    except OSError as error:
        raise type(error)(error.errno, f"the output folder {folder} cannot be written: {error.strerror}") from error
