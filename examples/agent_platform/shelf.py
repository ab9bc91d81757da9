"""What blocks store: values of a user's graph, and the text files of a run."""

from __future__ import annotations

from typing import Any

import orjson

from examples.agent_platform.blocks.block import BlockFailed
from examples.agent_platform.database import Connection, Database

MAX_VALUE = 65_536  # bytes of JSON
MAX_KEYS = 1_000  # of one graph
MAX_FILES, MAX_FILE = 50, 500_000  # files of a run, characters of a file


class StoredShelf:
    """The shelf in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_value(self, user_id: str, graph_id: str, key: str) -> tuple[Any] | None:
        """Returns the value in a tuple, or None if nothing is stored."""

        def act(c: Connection) -> Any:
            condition = "user_id = ? AND graph_id = ? AND key = ?"
            statement = f"SELECT value FROM stored_values WHERE {condition}"  # noqa: S608 - a constant
            return c.execute(statement, [user_id, graph_id, key]).fetchone()

        row = await self._database.transact(act)
        return None if row is None else (orjson.loads(row["value"]),)

    async def set_value(self, user_id: str, graph_id: str, key: str, value: Any) -> None:
        """Stores a value. Raises BlockFailed if there are too many, or if it is too large."""
        text = orjson.dumps(value).decode()
        if len(text) > MAX_VALUE:
            raise BlockFailed(f"the value is larger than {MAX_VALUE} bytes")

        def act(c: Connection) -> None:
            others = "SELECT count(*) FROM stored_values WHERE user_id = ? AND graph_id = ? AND key != ?"
            (count,) = c.execute(others, [user_id, graph_id, key]).fetchone()
            if count >= MAX_KEYS:
                raise BlockFailed(f"{MAX_KEYS} values are stored, more are not possible")
            c.execute("INSERT OR REPLACE INTO stored_values VALUES (?, ?, ?, ?)", [user_id, graph_id, key, text])

        await self._database.transact(act)

    async def write_text(self, run_id: str, name: str, text: str, *, append: bool) -> int:
        """Writes a file of a run. Returns its characters. Raises BlockFailed if it is too long, or one too many."""

        def act(c: Connection) -> int:
            texts = {
                row["name"]: row["text"] for row in c.execute("SELECT * FROM run_files WHERE run_id = ?", [run_id])
            }
            whole: str = texts.get(name, "") + text if append else text
            if len(whole) > MAX_FILE or len(texts.keys() | {name}) > MAX_FILES:
                raise BlockFailed(f"a run has at most {MAX_FILES} files of at most {MAX_FILE} characters")
            c.execute("INSERT OR REPLACE INTO run_files VALUES (?, ?, ?)", [run_id, name, whole])
            return len(whole)

        return await self._database.transact(act)

    async def read_text(self, run_id: str, name: str) -> str | None:
        def act(c: Connection) -> Any:
            return c.execute("SELECT text FROM run_files WHERE run_id = ? AND name = ?", [run_id, name]).fetchone()

        row = await self._database.transact(act)
        return None if row is None else str(row["text"])
