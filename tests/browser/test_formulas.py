"""Formulas in an answer are shown as MathML, those that KaTeX cannot read as they were written."""

from __future__ import annotations

from tests.browser.conftest import OpenPage
from tests.e2e.chat_api import converse, open_session
from tests.e2e.stack import Stack, new_user

ANSWER = r"""
Einstein: $E = mc^2$, for $5 and $10.

\[
\int_0^1 x^2 \, dx
  = \frac{1}{3}
\]

Wrong: $\frac{1$ and `$x$`."""
_SHOWN = """[...document.querySelectorAll('.prose math annotation')].map(
    (one) => one.textContent.trim().replace(/\\r/g, '\\n'))"""
_REST = "[...document.querySelectorAll('.prose p')].at(-1).innerText"


async def test_formulas_are_drawn_and_wrong_ones_are_shown_as_written(open_page: OpenPage, stack: Stack) -> None:
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        await converse(client, session, "/say " + ANSWER.strip().replace("\n", "\r"))  # a command is a line
    page = await open_page(user, f"/c/{session}")
    await page.tab.shows(_SHOWN, ["E = mc^2", "\\int_0^1 x^2 \\, dx\n  = \\frac{1}{3}"])
    await page.tab.shows(_REST, "Wrong: $\\frac{1$ and $x$.")
    assert await page.tab.js("document.querySelector('.prose math[display=block]') !== null")
    assert await page.serious_faults() == []
    await page.tab.shows("document.querySelector('.prose p').innerText.includes('for $5 and $10.')", True)
