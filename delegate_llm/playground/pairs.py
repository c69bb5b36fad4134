"""The pairs on offer: named by whoever starts the server, picked in the browser, loaded when first picked.

A browser says a number, never a path: it can only have what the command line names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from delegate_llm.errors import DelegateError, RequestError
from delegate_llm.playground.line import Job, Line

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("Offer", "State", "named", "offer_at")

logger = logging.getLogger(__name__)

State = Literal["resting", "loading", "ready", "failed"]


class Offer:
    """One pair that may be picked. Its line does all work with the models, loading included."""

    def __init__(self, base: str | None, reasoner: str | None, load: Callable[[], Pair]) -> None:
        """Offer a pair; nothing is loaded yet.

        Args:
            base: What the cheap model is called on the page; None for what the loaded pair calls it.
            reasoner: Likewise.
            load: Gives the pair; called in the line's thread before each question, so it had better
                remember.
        """
        self.base = base
        self.reasoner = reasoner
        self.line = Line(f"playground {base or 'of a server'}")
        self._load = load
        self._pair: Pair | None = None
        self._state: State = "resting"
        self._error: str | None = None
        self._policy: dict[str, Any] | None = None

    def about(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {
            "base": self.base or "the server's base",
            "reasoner": self.reasoner or "its reasoner",
            "state": self._state,
            "error": self._error,
            "policy": self._policy,
        }

    def begin_loading(self) -> None:
        """Load in the background, unless that is done or under way."""
        if self._state in ("resting", "failed") and self.line.empty:
            self._state = "loading"
            self.line.enter(Job(self._try))

    def pair(self) -> Pair:
        """The pair, loaded if need be; in the line's thread.

        Raises:
            DelegateError: As `load_pair`; the next call tries again.
        """
        if self._state != "ready":
            self._state = "loading"
        try:
            pair = self._load()
            self._policy = pair.policy.to_fields()
        except DelegateError as error:
            self._error, self._state = str(error), "failed"
            raise
        except Exception as error:
            self._error, self._state = f"the pair could not be loaded: {error!r:.200}", "failed"
            raise
        self.base = self.base or named(pair.base.name)
        self.reasoner = self.reasoner or named(pair.reasoner.name)
        self._pair, self._error, self._state = pair, None, "ready"
        return pair

    def close(self) -> None:
        """Stop what is under way, and the engine or the connections of the pair, where it has such."""
        self.line.close()
        if self._pair is not None:
            self._pair.close()

    @property
    def state(self) -> State:
        """How far it is."""
        return self._state

    def _try(self) -> None:
        try:
            self.pair()
        except DelegateError:
            pass  # the page reads it from `about`
        except Exception:
            logger.exception("a pair could not be loaded")


def offer_at(offers: Sequence[Offer], number: Any) -> Offer:
    """The pair that a browser picks.

    Raises:
        RequestError: If it is none of them.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(offers):
        msg = f"pair: {number!r:.80} is none of the {len(offers)} on offer; reload the page"
        raise RequestError(msg)
    return offers[number]


def named(source: str) -> str:
    """A model's name for the page: a hub id or a shipped name as it is, of a path the last part."""
    return Path(source).name if source.startswith(("/", ".", "~")) else source
