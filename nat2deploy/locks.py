"""Files that one process at a time holds; the system lets go of them however the process ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nat2deploy.errors import UserError
from nat2deploy.files import cannot_write


@contextmanager
def holding(lock: Path, busy: str, *, keep: bool = False) -> Iterator[None]:
    """Hold a lock file, which is made where it is not there, and removed at the end unless ``keep``.

    So are folders that were made for it, where nothing else was put into them.

    Windows has no such locks: there nobody is kept out.

    Raises:
        UserError: another process holds it, with the words ``busy``; or it cannot be written.
    """
    made = [] if keep else [folder for folder in lock.parents if not folder.exists()]
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stream = lock.open("w")
        except OSError as error:
            raise cannot_write(lock, error) from error
        with stream:
            if not _taken(stream.fileno(), lock, busy):
                continue
            try:
                yield
            finally:
                if not keep:
                    lock.unlink(missing_ok=True)
                    with suppress(OSError):  # what was meant to be written is there
                        for folder in made:
                            folder.rmdir()
            return


def _taken(handle: int, lock: Path, busy: str) -> bool:
    """Lock an open file; False where its holder removed it meanwhile, so that it locks nobody out."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(busy) from error
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except FileNotFoundError:
        return False
