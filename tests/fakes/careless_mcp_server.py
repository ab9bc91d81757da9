"""`python -m tests.fakes.careless_mcp_server [PORT]`: an MCP server without the SDK, of the protocol of 2025-11-25.

It follows https://modelcontextprotocol.io/specification/2025-11-25/basic/transports, and makes faults of
careless servers, which the specification does not describe. It runs over stdio, or over HTTP at that port. Its tool
`say` answers with the text of its argument, in which `@ID@` stands for the request's id and `@BIG@` for five megabytes.

Variables: `OLD_RUST` makes it exit at any first request but `initialize`, as rmcp before 3.0 does. `START_DELAY` is
seconds before it reads. `LAST_WORDS` makes it print a complaint about its `TOKEN` and exit. `TOOLS`
is a JSON list of further tools, and `RESULTS` an object with the results of some of them. Of the others, `add` adds `a`
and `b`, `pid` tells the process id, and `die` ends the process.

Paths over HTTP: `/json` answers with JSON, `/events` with events, `/status/N` with that status, `/sessions` and `/node`
have sessions. `/node` refuses unknown sessions like the examples of the TypeScript SDK. `/hangs` never answers a
notification. `/echo` refuses everything with a 401 that repeats the address and the login, and `/repeats` refuses calls
with an error that repeats them. POST `/forget` forgets all sessions. `MARKS` names a file in which calls are noted.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NO_SUCH_METHOD = -32601
BIG = "x" * 5_000_000
_NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
_NOTHING = {"type": "object"}
TOOLS = [{"name": "add", "inputSchema": _NUMBERS}, *({"name": one, "inputSchema": _NOTHING} for one in ("pid", "die"))]
"""Further tools, for tests of a server's life. It starts with a twentieth of the CPU time of one with the SDK."""
RESULTS: dict[str, Any] = json.loads(os.environ.get("RESULTS", "{}"))
sessions: set[str] = set()


def tools() -> list[dict[str, Any]]:
    text = {"type": "object", "properties": {"text": {"type": "string"}}}
    seconds = {"type": "object", "properties": {"seconds": {"type": "number"}}}
    further = json.loads(os.environ.get("TOOLS", "[]"))
    return [{"name": "say", "inputSchema": text}, {"name": "wait", "inputSchema": seconds}, *further]


def answer(request: dict[str, Any]) -> str:
    """Returns the line that answers a request."""
    params = request.get("params") or {}
    match request["method"]:
        case "initialize":
            about = {"name": "careless", "version": "1"}
            result: dict[str, Any] = {
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about,
                "instructions": "Always say please.",
            }  # fmt: skip
        case "tools/list":
            result = {"tools": tools()}
        case "tools/call" if params["name"] == "say":
            number = json.dumps(request["id"])
            return str(params["arguments"]["text"].replace("@ID@", number).replace("@BIG@", BIG))
        case "resources/read":
            result = {"contents": [{"uri": params["uri"], "mimeType": "text/plain", "text": "as linked"}]}
        case "tools/call" if params["name"] in RESULTS:
            result = RESULTS[params["name"]]
        case "tools/call" if params["name"] in ("add", "pid"):
            number = sum(params["arguments"].values()) if params["name"] == "add" else os.getpid()
            result = {"content": [{"type": "text", "text": str(number)}], "structuredContent": {"result": number}}
        case "tools/call" if params["name"] == "die":
            os._exit(7)
        case "tools/call":
            mark(params["name"])
            time.sleep(params["arguments"].get("seconds", 0))
            for step in range(params["arguments"].get("steps", 0)):
                report(params["_meta"]["progressToken"], step + 1, params["arguments"]["steps"])
                time.sleep(params["arguments"]["pause"])
            said = json.dumps(params.get("arguments"))
            result = {"content": [{"type": "text", "text": said}]}
        case _:
            error = {"code": NO_SUCH_METHOD, "message": "no such method"}
            return json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error})
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})


def report(token: Any, progress: int, total: int) -> None:
    """Reports progress, over stdio only."""
    about = {"progressToken": token, "progress": progress, "total": total, "message": f"step {progress}"}
    print(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": about}), flush=True)


def mark(word: str) -> None:
    if "MARKS" in os.environ:
        with Path(os.environ["MARKS"]).open("a") as marks:
            marks.write(f"{word}\n")


# --- stdio --------------------------------------------------------------------------------------------------------


def serve_lines() -> None:
    if "LAST_WORDS" in os.environ:
        print("API_KEY", os.environ["TOKEN"], "is bad", file=sys.stderr, flush=True)
        raise SystemExit(3)
    time.sleep(float(os.environ.get("START_DELAY", "0")))
    lock = threading.Lock()

    def respond(request: dict[str, Any]) -> None:
        line = answer(request)
        with lock:
            print(line, flush=True)

    first = True
    for line in sys.stdin:
        request = json.loads(line)
        if first and "OLD_RUST" in os.environ and request.get("method") != "initialize":
            raise SystemExit(f"expect initialize request, but received: {request.get('method')}")
        first = False
        if "id" in request:
            threading.Thread(target=respond, args=(request,), daemon=True).start()


# --- HTTP ---------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.partition("?")[0]
        if path == "/forget":
            sessions.clear()
            return self._send(200, "")
        if path.startswith("/status/"):
            return self._refuse(int(path.removeprefix("/status/")))
        message = json.loads(body)
        if path == "/echo" or (path == "/repeats" and message.get("method") == "tools/call"):
            return self._repeat(401 if path == "/echo" else 400, message.get("id"))
        if path == "/hangs" and "id" not in message:
            threading.Event().wait()
        if (refusal := self._without_session(path, message)) is not None:
            status, error = refusal
            return self._send(status, json.dumps({"jsonrpc": "2.0", "id": None, "error": error}), "application/json")
        if "id" not in message:
            return self._send(202, "")
        line = answer(message)
        headers = {}
        if path in ("/sessions", "/node") and message["method"] == "initialize":
            headers["Mcp-Session-Id"] = uuid.uuid4().hex
            sessions.add(headers["Mcp-Session-Id"])
        if path == "/events":
            return self._send(200, f"event: message\r\ndata: {line}\r\n\r\n", "text/event-stream", headers)
        return self._send(200, line, "application/json", headers)

    def do_GET(self) -> None:
        self._send(405, "")

    def do_DELETE(self) -> None:
        self._send(405, "")

    def _without_session(self, path: str, message: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if path not in ("/sessions", "/node") or message.get("method") in ("initialize", "server/discover"):
            return None
        if self.headers.get("mcp-session-id") in sessions:
            return None
        if path == "/sessions":
            return 404, {"code": -32001, "message": "Session not found"}
        return 400, {"code": -32000, "message": "Bad Request: No valid session ID provided"}

    def _repeat(self, status: int, number: Any) -> None:
        login = self.headers.get("authorization", "none").split()[-1]
        error = {"code": -32001, "message": f"The login {login} is not valid for {self.path}"}
        self._send(status, json.dumps({"jsonrpc": "2.0", "id": number, "error": error}), "application/json")

    def _refuse(self, status: int) -> None:
        place = f"http://127.0.0.1:{self.server.server_port}/.well-known/oauth-protected-resource?key=secret"  # type: ignore[attr-defined]
        headers = {
            401: {"WWW-Authenticate": f'Bearer resource_metadata="{place}"'},
            302: {"Location": "https://login.example.org/?state=secret"},
        }
        self._send(status, "no", "text/plain", headers.get(status, {}))

    def _send(self, status: int, text: str, kind: str = "text/plain", headers: dict[str, str] | None = None) -> None:
        body = text.encode(errors="surrogatepass")
        self.send_response(status)
        for name, value in {**(headers or {}), "content-type": kind, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    """Connections that may wait. With the default of 5, Linux answers a burst with SYN cookies, which may lose some."""


if __name__ == "__main__":
    if sys.argv[1:]:
        Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    else:
        serve_lines()
