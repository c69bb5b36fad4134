"""Answers as a page to read: text shaded by divergence, takeovers marked, and why each one was.

`render` makes the page of `Shown` answers, `read_answers` finds them in what the other commands leave behind.
"""

from __future__ import annotations

from delegate_llm.report.answers import Shown, columns
from delegate_llm.report.page import frame, page_of, render
from delegate_llm.report.sources import Found, read_answers

__all__ = ("Found", "Shown", "columns", "frame", "page_of", "read_answers", "render")
