#!/usr/bin/env bash
# claude-agent-sdk 0.2.184 (its program is Claude Code 2.1.327), seen 2026-12-01 on Python 3.11, with a server on loopback
# that answers POST /v1/messages as Anthropic's does.
#
# A history is given to the program as messages of its input: those of the user with "shouldQuery": false, which are only
# taken in, those of the model as they are, and last the results of the tools, which are to be answered.
#
# Expected: the request has the messages in the order of the input.
# Seen: messages of the model overtake all those of the user that were written before them. The order is kept if one waits
# for the result that the program writes for each message that is only taken in. A transcript that ends with the results
# is no way out: "No response requested." is put between the results and the next prompt as an answer of the model.
# A connection that breaks in the middle of an answer ends with content_block_stop, message_delta and message_stop, which
# the program makes up: only a stop_reason of null tells.
#
# Output:
#   at once: model:one model:call user:result+first+second
#   one by one: user:first model:one user:second model:call user:result
#   transcript: user:first model:call user:result model:No response requested. user:go
#   broken: content_block_stop message_delta message_stop, stop_reason None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check claude-agent-sdk==0.2.184 2>/dev/null
cat >"$folder/seen.py" <<'PY'
import asyncio, http.server, json, pathlib, sys, threading, time, uuid
from claude_agent_sdk import (ClaudeAgentOptions, ClaudeSDKClient, ResultMessage, StreamEvent, SdkMcpTool,
                              create_sdk_mcp_server)

folder, requests, breaks = pathlib.Path(sys.argv[1]), [], []


class Anthropic(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        requests.append(body)
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
                   "stop_reason": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
        events = [{"type": "message_start", "message": message},
                  {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                  {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Well."}}]
        if not breaks:
            events += [{"type": "content_block_stop", "index": 0},
                       {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
                       {"type": "message_stop"}]
        data = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data) + (100 if breaks else 0)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        time.sleep(0.5 if breaks else 0)  # so that the beginning is read before the connection breaks
        self.close_connection = True


def text(content):
    return [{"type": "text", "text": content}]


CALL = [{"type": "tool_use", "id": "toolu_1", "name": "mcp__t__look", "input": {}}]
RESULT = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "result"}]


def model(content):
    return {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
            "content": content, "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0}}


def asked(content, query):
    return {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None,
            "shouldQuery": query}


def answered(content):
    return {"type": "assistant", "uuid": str(uuid.uuid4()), "parent_tool_use_id": None, "message": model(content)}


async def one(message):
    yield message


async def run(name, history, wait, transcript=()):
    home = folder / name.replace(" ", "-")
    (home / "work").mkdir(parents=True)
    session = str(uuid.uuid4())
    if transcript:
        lines, parent = [], None
        for role, content in transcript:
            entry = {"parentUuid": parent, "isSidechain": False, "type": role, "uuid": str(uuid.uuid4()),
                     "timestamp": "2026-12-01T09:00:00.000Z", "sessionId": session, "cwd": str(home / "work"),
                     "userType": "external", "version": "2.1.327",
                     "message": model(content) if role == "assistant" else {"role": role, "content": content}}
            parent = entry["uuid"]
            lines.append(json.dumps(entry))
        project = "".join(letter if letter.isalnum() else "-" for letter in str(home / "work"))
        path = home / "projects" / project / f"{session}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")
    tool = SdkMcpTool(name="look", description="Looks", input_schema={"type": "object"}, handler=None)
    options = ClaudeAgentOptions(
        tools=[], mcp_servers={"t": create_sdk_mcp_server("t", tools=[tool])}, strict_mcp_config=True,
        setting_sources=[], skills=[], verbatim_prompts=True, include_partial_messages=True, cwd=home / "work",
        model="claude-sonnet-4-5", system_prompt="Be kind.", **({"resume": session} if transcript else {}),
        env={"HOME": str(home), "CLAUDE_CONFIG_DIR": str(home), "ANTHROPIC_API_KEY": "none",
             "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.server_port}", "CLAUDE_CODE_MAX_RETRIES": "0",
             "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1"})
    events, before = [], len(requests)
    async with asyncio.timeout(60), ClaudeSDKClient(options) as client:
        told = client.receive_messages()
        for message in history:
            await client.query(one(message))
            if wait and message.get("shouldQuery") is False:
                async for heard in told:
                    if isinstance(heard, ResultMessage):
                        break
        async for heard in told:
            if isinstance(heard, StreamEvent):
                events.append(heard.event)
            elif isinstance(heard, ResultMessage):
                break
    return requests[before], events


def shape(body):
    kinds = {"user": "user", "assistant": "model"}
    shown = []
    for message in body["messages"]:
        blocks = [block.get("text") or block.get("content") or "call" for block in message["content"]]
        words = [block.split("<system-reminder>")[0].strip() for block in blocks]
        shown.append(f"{kinds[message['role']]}:{'+'.join(word for word in words if word)}")
    return " ".join(shown)


async def main():
    history = [asked(text("first"), False), answered(text("one")), asked(text("second"), False), answered(CALL),
               asked(RESULT, True)]
    print("at once:", shape((await run("at once", history, False))[0]))
    print("one by one:", shape((await run("one by one", history, True))[0]))
    rows = (("user", text("first")), ("assistant", CALL), ("user", RESULT))
    print("transcript:", shape((await run("transcript", [asked(text("go"), True)], True, rows))[0]))
    breaks.append(True)
    _, events = await run("broken", [asked(text("first"), True)], True)
    ends = [event["type"] for event in events[3:]]
    reasons = [event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"]
    print("broken:", *ends[:-1], f"{ends[-1]}, stop_reason {reasons[0]}")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anthropic)
threading.Thread(target=server.serve_forever, daemon=True).start()
asyncio.run(main())
PY
timeout 200 "$folder/venv/bin/python" "$folder/seen.py" "$folder" 2>"$folder/log" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
at once: model:one model:call user:result+first+second
one by one: user:first model:one user:second model:call user:result
transcript: user:first model:call user:result model:No response requested. user:go
broken: content_block_stop message_delta message_stop, stop_reason None
SEEN
