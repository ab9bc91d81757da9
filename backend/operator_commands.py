"""The operator's commands of `python -m backend`. The docstring of a public function is its command's help text."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import orjson
import typer
from pydantic import SecretStr

from backend.chat.models import Json
from backend.commands import read_settings, say
from backend.config import Settings
from backend.embedded import running_servers
from backend.errors import ConfigError
from backend.ids import TaskId

if TYPE_CHECKING:  # imported late, so that `up` and `migrate` do not wait for it
    from backend.chat.resources import Resources
    from backend.chat.store.operators.task_view import TaskView

TASK_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def doctor(json: AsJson = False) -> None:
    """Check settings, stores, queues, indexes and tasks, and say what to do. Ends with code 1 if there is an error."""
    from backend.operating.doctor import examine
    from backend.operating.findings import exit_code

    given = read_settings()
    servers = (given.database_url, given.db_host, given.redis_url, given.redis_host)
    settings = _with_servers_of_up(given)
    found = asyncio.run(examine(settings, named=any(servers), beside_up=settings is not given))
    if json:
        _say_json({"healthy": not exit_code(found), "findings": [finding.as_json() for finding in found]})
    else:
        say("\n".join(finding.as_text() for finding in found))
    sys.exit(exit_code(found))


def _with_servers_of_up(settings: Settings) -> Settings:
    """Returns the settings, with the servers of a running `up` in place of those that are not set."""
    embedded, found = running_servers(settings.data_dir), dict[str, object]()
    if settings.database_url is None and settings.db_host is None and embedded.postgres_dsn:
        found["database_url"] = SecretStr(embedded.postgres_dsn)
    if settings.redis_url is None and settings.redis_host is None and embedded.redis_dsn:
        found["redis_url"] = SecretStr(embedded.redis_dsn)
    if settings.rabbitmq_url is None and settings.rabbitmq_host is None and found:
        found["queue"] = "redis"
    return settings.model_copy(update=found) if found else settings


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns the rows in columns under their header, or `none`. The last column has any width."""
    if not rows:
        return "none"
    lines = [header, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header) - 1)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=False)] + [line[-1]] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _say_json(document: Json) -> None:
    say(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


# --- tasks --------------------------------------------------------------------------------------------------------

tasks = typer.Typer(help="Look at tasks of all users, cancel them, and publish turns again.", no_args_is_help=True)
TaskArgument = Annotated[str, typer.Argument(metavar="TASK_ID")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000)]


class Shown(StrEnum):
    UNENDED = "unended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@tasks.command("list")
def list_tasks(status: Shown = Shown.UNENDED, limit: Limit = 50, json: AsJson = False) -> None:
    """List the tasks that run, wait or are pending, oldest first; or the newest that ended with a status."""
    from backend.chat.store.operators.task_view import list_ended, list_unended

    async def look(resources: Resources) -> Sequence[TaskView]:
        async with resources.database.connection() as c:
            return await (list_unended(c, limit) if status is Shown.UNENDED else list_ended(c, status.value, limit))

    found = _with_resources(look)
    if json:
        _say_json([_document(view) for view in found])
    else:
        rows = [(view.id, view.kind, view.state, f"{view.created_at:%F %T}", view.error or "") for view in found]
        say(_table(("TASK", "KIND", "STATE", "CREATED", "ERROR"), rows))


@tasks.command("show")
def show_task(task_id: TaskArgument, json: AsJson = False) -> None:
    """Show a task's row, without the text of its user."""
    from backend.operating.task_acts import view_of

    document = _document(_with_resources(lambda resources: view_of(resources, _task_id(task_id))))
    if json:
        _say_json(document)
    else:
        say("\n".join(f"{name:<17} {value}" for name, value in document.items() if value is not None))


@tasks.command("cancel")
def cancel_task(task_id: TaskArgument, yes: Yes = False) -> None:
    """Cancel a task that runs, waits or is pending. Its user sees that it was cancelled."""
    from backend.operating.task_acts import cancel

    task = _task_id(task_id)
    _confirm(f"Cancel {task}?", yes=yes)
    say(_with_resources(lambda resources: cancel(resources, task)))


@tasks.command("requeue")
def requeue_task(task_id: TaskArgument) -> None:
    """Publish a turn again that waits for an executor, or whose executor is dead. It runs once all the same."""
    from backend.operating.task_acts import requeue

    say(_with_resources(lambda resources: requeue(resources, _task_id(task_id))))


# --- dead letters -------------------------------------------------------------------------------------------------

dead_letters = typer.Typer(help="Look at what the queues gave up on, send it again, or drop it.", no_args_is_help=True)
LetterArgument = Annotated[str, typer.Argument(metavar="LETTER_ID", help="As `list` shows it.")]


class LetterKind(StrEnum):
    TURNS = "turns"
    COMPLETIONS = "completions"


@dead_letters.command("list")
def list_letters(limit: Limit = 50, json: AsJson = False) -> None:
    """List the dead letters of turns and of completions. Executors take those of turns by themselves.

    RabbitMQ counts each look as a delivery of those of turns. Since its version 4.0 it drops a letter after 20.
    """
    from backend.operating.dead_letter_acts import all_letters, as_json

    found = [as_json(letter) for letter in _with_resources(lambda resources: all_letters(resources, limit))]
    if json:
        _say_json(found)
    else:
        say(_table(("KIND", "LETTER", "REASON", "NAMES"), [_row(letter) for letter in found]))


@dead_letters.command("show")
def show_letter(
    kind: LetterKind, letter_id: LetterArgument, body: Annotated[bool, typer.Option("--body")] = False
) -> None:
    """Show a dead letter as JSON; with --body also what was sent, which may have data of a user.

    RabbitMQ counts each look as a delivery of the letters of turns. Since its version 4.0 it drops a letter after 20.
    """
    from backend.operating.dead_letter_acts import as_json, find

    letter = _with_resources(lambda resources: find(resources, kind.value, letter_id))
    sent: Json = {"body": letter.body.decode(errors="replace")} if body else {}
    _say_json({**as_json(letter), **sent})


@dead_letters.command("requeue")
def requeue_letter(kind: LetterKind, letter_id: LetterArgument) -> None:
    """Send a dead letter to its first destination again, and remove it."""
    from backend.operating.dead_letter_acts import send_again

    say(_with_resources(lambda resources: send_again(resources, kind.value, letter_id)))


@dead_letters.command("drop")
def drop_letter(kind: LetterKind, letter_id: LetterArgument, yes: Yes = False) -> None:
    """Remove a dead letter for good."""
    from backend.operating.dead_letter_acts import drop

    _confirm(f"Drop {kind.value} {letter_id}?", yes=yes)
    say(_with_resources(lambda resources: drop(resources, kind.value, letter_id)))


def _row(letter: dict[str, Json]) -> tuple[str, ...]:
    names = letter.get("task_id") or letter.get("operation_id") or "nothing"
    return tuple(str(cell) for cell in (letter["kind"], letter["id"], letter["reason"], names))


# --- backups ------------------------------------------------------------------------------------------------------

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


def backup(file: BackupFile, force: Force = False) -> None:
    """Write the embedded PostgreSQL, and loose files of DATA_DIR, into a file. `up` may run meanwhile."""
    from backend.operating.backup import back_up

    say(asyncio.run(back_up(read_settings(), file, replace=force)))


def restore(file: BackupFile, yes: Yes = False) -> None:
    """Replace the data of `up` by those of a backup. `up` must not run meanwhile."""
    from backend.operating.backup import restore as run

    settings = read_settings()
    _confirm(f"Replace all conversations in {settings.data_dir}?", yes=yes)
    say(asyncio.run(run(settings, file)))


# --- shared -------------------------------------------------------------------------------------------------------


def _with_resources(act: Callable[[Resources], Awaitable[T]]) -> T:
    """Runs an act over the connections of a process. Raises ConfigError or Unavailable."""
    from backend.resources import open_resources

    settings = _with_servers_of_up(read_settings())
    if settings.database_url is None and settings.db_host is None:
        folder = settings.data_dir
        raise ConfigError(f"DATABASE_URL: no server is set, and `make run` does not run with DATA_DIR={folder}")

    async def run() -> T:
        async with open_resources(settings) as resources:
            return await act(resources)

    return asyncio.run(run())


def _task_id(text: str) -> TaskId:
    if not TASK_ID.fullmatch(text):
        raise ConfigError("TASK_ID: expected an id such as `tasks list` shows")
    return TaskId(text)


def _confirm(question: str, *, yes: bool) -> None:
    """Asks on a terminal. Elsewhere, ends the command unless `yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Add --yes to do it")
    typer.confirm(question, abort=True)


def _document(view: TaskView) -> dict[str, Json]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(view).items()
    }
