"""The contents of a Postgres schema as comparable lines, read from the system catalogs."""

from __future__ import annotations

import asyncpg

from tests.speed import limit

_COLUMNS = """
SELECT format('column %s.%s %s%s default %s', t.relname, a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' not null' ELSE '' END, pg_get_expr(d.adbin, d.adrelid))
FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind IN ('r', 'p', 'v', 'm', 'f')"""

_INDEXES = """
SELECT format('index %s: %s', indexname, indexdef) FROM pg_indexes WHERE schemaname = current_schema()"""

_CONSTRAINTS = """
SELECT format('constraint %s on %s: %s', conname, conrelid::regclass, pg_get_constraintdef(oid))
FROM pg_constraint WHERE connamespace = current_schema()::regnamespace"""

_OTHERS = """
SELECT format('relation %s of kind %s', relname, relkind) FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind <> 'i'
UNION ALL
SELECT format('type %s', typname) FROM pg_type
WHERE typnamespace = current_schema()::regnamespace AND typtype IN ('e', 'd')
UNION ALL
SELECT format('function %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
UNION ALL
SELECT format('trigger %s on %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal"""


async def catalog_of(dsn: str) -> set[str]:
    """Returns a line for each column, index, constraint, relation, type, function and trigger, but none of Prisma."""
    connection = await asyncpg.connect(dsn, timeout=limit(20), command_timeout=limit(30))
    try:
        statements = (_COLUMNS, _INDEXES, _CONSTRAINTS, _OTHERS)
        lines = [row[0] for statement in statements for row in await connection.fetch(statement)]
    finally:
        await connection.close(timeout=limit(20))
    return {line for line in lines if "_prisma_migrations" not in line}


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=limit(20), command_timeout=limit(30))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close(timeout=limit(20))
