"""A PostgreSQL of its own, from whatever is installed: in a temporary folder, on a socket there."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNERS = ("postgres", "nobody")
"""Whom root lets it run as, since it refuses root."""


class NoPostgresError(Exception):
    """There is none; the message says why."""


@contextmanager
def running() -> Iterator[str]:
    """Start it; the connection string of its database, for as long as it runs.

    Raises:
        NoPostgresError: If it is not installed or does not start.
    """
    binaries, owner = _binaries(), _owner()
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if owner is not None:
            shutil.chown(root, owner)
        data, log = root / "data", root / "log"
        _run([binaries / "initdb", "--no-sync", "--auth=trust", "--username=tests", "-D", data], owner)
        settings = f"-k {root} -c listen_addresses='' -c fsync=off"
        _run([binaries / "pg_ctl", "-D", data, "-l", log, "-o", settings, "-w", "start"], owner)
        try:
            yield f"host={root} user=tests dbname=postgres"
        finally:
            _run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], owner)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _binaries() -> Path:
    """Where `initdb` is: Debian keeps it off the path."""
    found = [each for each in [shutil.which("initdb")] if each]
    found += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    if not found:
        msg = "no PostgreSQL is installed; on Debian: apt-get install postgresql"
        raise NoPostgresError(msg)
    return Path(found[0]).resolve().parent


def _owner() -> str | None:
    """Whom it runs as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    for each in OWNERS:
        if each in known:
            return each
    msg = f"PostgreSQL does not run as root, and there is nobody else: {', '.join(OWNERS)}"
    raise NoPostgresError(msg)


def _run(command: list[str | Path], owner: str | None) -> None:
    group = None if owner is None else pwd.getpwnam(owner).pw_gid
    done = subprocess.run(
        command,
        user=owner,
        group=group,
        extra_groups=None if owner is None else [],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if command[0].name == "initdb" else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = f"{command[0]} failed: {(done.stdout or '').strip()[-300:]}"
        raise NoPostgresError(msg)
