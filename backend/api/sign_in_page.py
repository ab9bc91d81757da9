"""The small pages that a user sees while they sign in at a tool server. They hold no script and nothing secret."""

from __future__ import annotations

from html import escape

from fastapi.responses import HTMLResponse

from backend.chat.flows.sign_in import SignInVisit, VisitState

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_STATUS = {VisitState.GONE: 410, VisitState.OTHER_BROWSER: 403, VisitState.FAILED: 502}
_TEXTS = {
    VisitState.SIGNED_IN: ("You are signed in", "The conversation goes on by itself. You can close this page."),
    VisitState.DENIED: (
        "No access",
        "You have not given access. The conversation goes on without it. You can close this page.",
    ),
    VisitState.GONE: (
        "This link is no longer open",
        "It was used, it has expired, or the conversation has gone on without it. Ask again in the conversation.",
    ),
    VisitState.OTHER_BROWSER: (
        "This sign-in began in another browser",
        "Nothing was stored. Open the link in the conversation in this browser, or go on in the other one.",
    ),
}


def page_of(visit: SignInVisit, next_url: str = "") -> HTMLResponse:
    """Returns the page for a visit. `next_url` leads on from the first page."""
    if visit.end is VisitState.OPEN:
        title = f"Sign in for the tool server {visit.server}"
        body = (
            f"<p>The conversations of <strong>{escape(visit.owner)}</strong> will use this tool server with the "
            f"account with which you sign in at <strong>{escape(visit.host)}</strong>.</p>"
            "<p>Go on only if you are that person and have just asked for it. If somebody has sent you this link, "
            "close this page.</p>"
            f'<p><a class="button" href="{escape(next_url)}" rel="noreferrer">Continue to {escape(visit.host)}</a></p>'
        )
    elif visit.end is VisitState.FAILED:
        title = "The sign-in has failed"
        body = (
            f"<p>The sign-in server of {escape(visit.server)}: {escape(visit.why)}.</p>"
            "<p>Open the link in the conversation to try again.</p>"
        )
    else:
        title, text = _TEXTS[visit.end]
        body = f"<p>{escape(text)}</p>"
    return HTMLResponse(_document(title, body), status_code=_STATUS.get(visit.end, 200), headers=HEADERS)


def _document(title: str, body: str) -> str:
    style = (
        "body{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}"
        ".button{display:inline-block;padding:.5rem 1rem;border:1px solid;border-radius:.4rem;text-decoration:none}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<style>{style}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )
