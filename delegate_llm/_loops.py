"""Event loops in threads of their own."""

from __future__ import annotations

import asyncio

__all__ = ("run",)


def run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and close it; for a thread.

    Whoever waits for a task that is under way then is told that it was cancelled.
    """
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
