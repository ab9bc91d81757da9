#!/usr/bin/env bash
# FastAPI 0.165.0 with pydantic 2.14.3, seen 2026-11-30 on Python 3.11.
#
# Expected: pydantic's `defer_build=True` builds a model's validator at its first use, and changes nothing else.
# Seen: if such a model is the body of a FastAPI route, pydantic warns (UnsupportedFieldAttributeWarning) that an alias
# 'body' has no effect. The user's code has no such alias: FastAPI gives it to the parameter. Under `python -W error`,
# the OpenAPI document cannot be made. Without defer_build there is no warning.
#
# Output:
#   at once: no warning
#   deferred: UnsupportedFieldAttributeWarning: The 'alias' attribute with value 'body'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 pydantic==2.14.3 2>/dev/null
cat >"$folder/seen.py" <<'PY'
import warnings
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

class AtOnce(BaseModel):
    text: str

class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)
    text: str

def warning_of(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        def route(body: model): ...
        app = FastAPI()
        app.post("/")(route)
        app.openapi()
    return next((f"{w.category.__name__}: {str(w.message).split(' was ')[0]}" for w in caught), "no warning")

print("at once:", warning_of(AtOnce))
print("deferred:", warning_of(Deferred))
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
at once: no warning
deferred: UnsupportedFieldAttributeWarning: The 'alias' attribute with value 'body'
SEEN
