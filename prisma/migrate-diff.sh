#!/usr/bin/env bash
# Writes the next migration: `prisma/migrate-diff.sh NAME [REVISION]`, NAME in snake_case.
# It leads from the schema.prisma of REVISION (default: HEAD) to the schema.prisma of the working tree.
set -euo pipefail
name=${1:?usage: prisma/migrate-diff.sh NAME [REVISION]}
revision=${2:-HEAD}
[[ $name =~ ^[a-z][a-z0-9_]*$ ]] || { echo "NAME is snake_case, like add_agents" >&2; exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if git -C "$root" show "$revision:schema.prisma" >"$work/old.prisma" 2>/dev/null; then
  from=(--from-schema-datamodel "$work/old.prisma")
else
  from=(--from-empty)
fi
"$here/prisma.sh" validate >/dev/null
# The database URL names the schema of the tables, so the migration must not create "public".
"$here/prisma.sh" migrate diff "${from[@]}" --to-schema-datamodel "$root/schema.prisma" --script |
  sed -e '/^-- CreateSchema$/,/^$/d' >"$work/migration.sql"

if ! grep -qv -e '^--' -e '^$' "$work/migration.sql"; then
  echo "schema.prisma has not changed since $revision: nothing written" >&2
  exit 1
fi
folder=$root/backend/migrations/$(date -u +%Y%m%d%H%M%S)_$name
mkdir "$folder"
mv "$work/migration.sql" "$folder/migration.sql"
echo "$folder/migration.sql"
