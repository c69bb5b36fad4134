"""Who can reach a server."""

from __future__ import annotations

import ipaddress

from delegate_llm.errors import RequestError

__all__ = ("check_host", "is_loopback")


def check_host(host: str | None) -> None:
    """Make sure that a server without a key is this machine's own.

    Args:
        host: Where it listens; none means everywhere.

    Raises:
        RequestError: If others could reach it.
    """
    if not is_loopback(host):
        msg = (
            f"host: {host!r} is open to others; give --api-key (or VLLM_API_KEY in the environment), "
            "or leave --host out"
        )
        raise RequestError(msg)


def is_loopback(host: str | None) -> bool:
    """Whether only this machine can reach what listens there."""
    if host is not None and host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
