#!/usr/bin/env bash
# Runs the prisma CLI offline: `prisma/prisma.sh validate`, `... format`, `... migrate diff ...`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -d "$here/node_modules/prisma" ] || npm ci --prefix "$here" --ignore-scripts --no-audit --no-fund >&2
export PRISMA_QUERY_ENGINE_LIBRARY=$here/package.json PRISMA_SCHEMA_ENGINE_BINARY=$here/package.json # never run
export PRISMA_HIDE_UPDATE_MESSAGE=1 CHECKPOINT_DISABLE=1
export DATABASE_URL=postgresql://nobody@localhost/nothing
exec node "$here/node_modules/prisma/build/index.js" "$@" --config "$here/prisma.config.mjs"
