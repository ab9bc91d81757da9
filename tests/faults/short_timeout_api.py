"""`python -m tests.faults.short_timeout_api`: an API that waits 2 s for a slow client, instead of 30 s."""

from __future__ import annotations

import uvloop

from backend.api.app import create_app
from backend.api.server import build_server
from backend.api.timeouts import Timeouts
from backend.config import load_settings
from backend.logs import configure_logs

PROGRAM = ("tests.faults.short_timeout_api",)
SEND_TIMEOUT = 2.0

if __name__ == "__main__":
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    timeouts = Timeouts(heartbeat_every=1.0, send_timeout=SEND_TIMEOUT, tick=0.2)
    uvloop.run(build_server(settings, create_app(settings, timeouts=timeouts)).serve())
