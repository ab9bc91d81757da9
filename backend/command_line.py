"""The command line of `python -m backend`, with its help and its words for mistakes."""

from __future__ import annotations

import typer

from backend.commands import migrate, serve, up

app = typer.Typer(
    help="CoPilot, a durable chat backend. Settings come from the environment; .env.default lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up, serve, migrate):
    app.command()(command)
