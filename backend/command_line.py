"""The command line of `python -m backend`, with its help and its error messages."""

from __future__ import annotations

import typer

from backend.commands import migrate, serve, up
from backend.operator_commands import backup, dead_letters, doctor, restore, tasks

app = typer.Typer(
    help="CoPilot, a durable chat backend. Settings come from the environment; .env.default lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up, serve, migrate, doctor, backup, restore):
    app.command()(command)
app.add_typer(tasks, name="tasks")
app.add_typer(dead_letters, name="dead-letters")
