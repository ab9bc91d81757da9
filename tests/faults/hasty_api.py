"""`python -m tests.faults.hasty_api`: an API that waits 2 s for its clients where the real one waits 30 s."""

from __future__ import annotations

import uvloop

from backend.api.app import create_app
from backend.api.pace import Pace
from backend.api.server import build_server
from backend.config import load_settings
from backend.logs import configure_logs

PROGRAM = ("tests.faults.hasty_api",)
SEND_TIMEOUT = 2.0

if __name__ == "__main__":
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    pace = Pace(heartbeat_every=1.0, send_timeout=SEND_TIMEOUT, tick=0.2)
    uvloop.run(build_server(settings, create_app(settings, pace=pace)).serve())
