"""`python -m tests.fakes.older_mcp_server`: an MCP server without the SDK, over stdio, of the protocol of 2025-06-18.

Its tool `grow` does nothing for `seconds`, then adds another tool and announces the change. With an argument the
server starts a process that outlives its input, as wrappers do, and itself does not end when its input ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

NO_SUCH_METHOD = -32601
names = ["grow"]


def say(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            about = {"name": "older", "version": "1"}
            return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
        case "tools/list":
            place = int(params.get("cursor", 0))
            tool = {"name": names[place], "inputSchema": {"type": "object"}}
            more = {"nextCursor": str(place + 1)} if place + 1 < len(names) else {}
            return {"tools": [tool], **more}
        case "tools/call":
            time.sleep(params["arguments"].get("seconds", 0))
            names.append(f"grown{len(names)}")
            say(method="notifications/tools/list_changed")
            return {"content": [{"type": "text", "text": "grown"}]}
    return None


if __name__ == "__main__":
    if sys.argv[1:]:
        subprocess.Popen(["sleep", sys.argv[1]], stdin=subprocess.DEVNULL)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = answer(request["method"], request.get("params") or {})
        if result is None:
            say(id=request["id"], error={"code": NO_SUCH_METHOD, "message": "no such method"})
        else:
            say(id=request["id"], result=result)
    if sys.argv[1:]:
        time.sleep(float(sys.argv[1]))
