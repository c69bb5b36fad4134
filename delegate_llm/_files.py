"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from delegate_llm.errors import RequestError

__all__ = ("cannot_write", "write_file")


def write_file(file: Path, content: str | bytes) -> None:
    """Write a file, or leave what was there as it is.

    Args:
        file: Where to; its folder must exist.
        content: Text goes out as UTF-8; a lone surrogate, which that does not have, is spelled out.

    Raises:
        RequestError: If the file cannot be written, as on a full disk.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    part = None
    try:
        file = file.resolve()  # what a link leads to is written, not the link
        if file.exists() and not file.is_file() and not file.is_dir():
            file.write_bytes(data)  # a device or a pipe, which nothing must take the place of
            return
        descriptor, part = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        _as_made_by_open(Path(part))
        Path(part).replace(file)
    except OSError as error:
        if part is not None:
            with contextlib.suppress(OSError):
                Path(part).unlink()
        raise cannot_write(file, error) from error


def cannot_write(file: Path, error: OSError) -> RequestError:
    """The error of ours for one of the system's while writing."""
    return RequestError(
        f"cannot write {str(file)!r}: {error.strerror or error}; free space, or choose another place"
    )


def _as_made_by_open(file: Path) -> None:
    """Temporary files are the owner's alone; this one is to be read as any other."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)
