"""Models behind the Claude Agent SDK: Claude Code's program makes the request, one process for each model call.

The loop of model and tools stays ours (decision 31). The program gets the history as messages of its input, offers our
tools, passes on the raw events of Anthropic's stream, and is killed when the model's message has ended. A tool of it
never runs: its handler waits until the program is gone, and the executor runs the call under its own rules.

Behaviour of claude-agent-sdk 0.2.184 with Claude Code 2.1.327, run on 2026-12-01:
`findings/claude-sdk-history-needs-turns.sh`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import anthropic

from backend.chat.models import Json
from backend.config import Settings
from backend.errors import ConfigError
from backend.files.kinds import Kind
from executor.llm.anthropic import ANTHROPIC_URL, anthropic_messages
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.body_reader import Read, read_from
from executor.llm.claude_cli import ClaudeCli
from executor.llm.events import ModelEvent
from executor.llm.extras import NO_EXTRAS, Extras
from executor.llm.failures import ModelCallError, of_error
from executor.llm.history import call_ids, compact_json
from executor.llm.model import Prompt
from executor.llm.provider_data import made_by
from executor.llm.retrying import ModelCallLimits, stream_events
from executor.slots import NoSlot, Slots

SERVER = "copilot"
PREFIX = f"mcp__{SERVER}__"
SLOT_WAIT = 60.0
"""Seconds that a model call waits for a slot at most."""
_FOLDER = "copilot-claude-"
_PASSED_ON = ("PATH", "LANG", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
              "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")  # fmt: skip
_FIXED = {
    "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",  # with them, some histories get a system message without content
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",  # ours count (`retrying.py`)
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_AUTO_COMPACT": "1",  # ours count (`summaries.py`)
}


@cache
def _slots(most: int) -> Slots:
    """Returns the slots that all models of this process share."""
    return Slots(most, wait=SLOT_WAIT)


@asynccontextmanager
async def open_claude_agent(
    settings: Settings, name: str, limits: ModelCallLimits | None = None, extras: Extras = NO_EXTRAS
) -> AsyncIterator[ClaudeAgentModel]:
    """Yields the model with this name. Raises ConfigError if the SDK has no program for this system."""
    import claude_agent_sdk  # on first use: it takes half a second

    program = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
    if not program.is_file():
        raise ConfigError("The Claude Agent SDK that is installed has no program for this system")
    key, base_url = settings.chat_api_key or settings.anthropic_api_key, settings.chat_base_url or None
    url = (base_url or ANTHROPIC_URL).rstrip("/").removesuffix("/v1")
    headers = "\n".join(f"{name}: {value}" for name, value in extras.headers.items())
    environment = {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **_FIXED,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key.get_secret_value() if key is not None else "none",
        **({"ANTHROPIC_CUSTOM_HEADERS": headers} if headers else {}),
    }
    limits = limits or ModelCallLimits.of(settings.chat_first_byte_timeout, base_url or ANTHROPIC_URL)
    secrets = [*([key.get_secret_value()] if key is not None else []), *extras.secrets]
    await asyncio.to_thread(_remove_folders_of_the_dead)
    yield ClaudeAgentModel(
        name, program, environment, limits, made_by(url, name), secrets, _slots(settings.claude_engine_turns)
    )


class ClaudeAgentModel:
    """A `Model`."""

    def __init__(
        self,
        name: str,
        program: Path,
        environment: Mapping[str, str],
        limits: ModelCallLimits,
        owner: str,
        secrets: list[str],
        slots: Slots,
    ) -> None:
        self.name = name
        self._program = program
        self._environment = environment
        self._limits = limits
        self._owner = owner
        self._secrets = secrets
        self._slots = slots

    def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        taken = call_ids(prompt.messages)
        return stream_events(
            lambda: self._connect(prompt),
            lambda: AnthropicDecoder(taken, self._owner),
            anthropic,
            self._limits,
            secrets=self._secrets,
        )

    def room(self, prompt: Prompt) -> int | None:
        """See `Model.room`."""
        return None

    def refused_kinds(self) -> frozenset[Kind]:
        """See `Model.refused_kinds`."""
        return frozenset()

    @asynccontextmanager
    async def _connect(self, prompt: Prompt) -> AsyncIterator[Read]:
        """Asks the model. Yields a reader of its events, in the form of a body."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._slots.slot(prompt.cache_key))
            except NoSlot:
                raise ModelCallError("overloaded", note="no free slot of CLAUDE_ENGINE_TURNS") from None
            folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            messages = await stack.enter_async_context(self._run(prompt, folder))
            yield read_from(await stack.enter_async_context(aclosing(_as_body(messages))))

    @asynccontextmanager
    async def _run(self, prompt: Prompt, folder: Path) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
        """Starts the program, gives it the prompt, and yields its messages. Kills it at the end, however that comes."""
        from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, create_sdk_mcp_server

        cli = ClaudeCli(self._command(prompt, folder), self._environment_in(prompt, folder), folder, self._secrets)
        tools = create_sdk_mcp_server(SERVER, tools=[_offered(tool) for tool in prompt.tools])
        options = ClaudeAgentOptions(mcp_servers={SERVER: tools}, verbatim_prompts=True)
        client = ClaudeSDKClient(options, transport=cli)
        try:
            await client.connect()
            said = _messages_of(client, cli)
            async with aclosing(said):
                await self._say(client, prompt, said)
                yield said
        except (OSError, ModelCallError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001  # the SDK's own classes, and bare exceptions of its control protocol
            failure = await cli.failure()
            failure.note = f"{failure.note} ({type(error).__name__})"
            raise failure from None
        finally:
            cli.kill()  # first, since the SDK would end its input, and the program would go on
            with contextlib.suppress(Exception):
                await client.disconnect()

    async def _say(self, client: Any, prompt: Prompt, said: AsyncGenerator[dict[str, Any], None]) -> None:
        """Gives the program the history, message by message, and then the last one, which it asks the model to answer.

        A message of the user with `shouldQuery` false is only taken in; the program says when it has. It takes an
        answer of the model in at once, even before messages of the user that still wait.
        """
        *history, last = anthropic_messages(prompt, self._owner)
        for message in history:
            if message["role"] == "assistant":
                await client.query(_one(self._answered(message)))
                continue
            await client.query(_one(_asked(message, query=False)))
            async for told in said:
                if told.get("type") == "result":
                    _raise_for(told)
                    break
        await client.query(_one(_asked(last, query=True)))

    def _answered(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Returns an answer of the model in the form of the program's own transcript."""
        content = [
            {**block, "name": PREFIX + block["name"]} if block["type"] == "tool_use" else block
            for block in message["content"]
        ]
        return {
            "type": "assistant",
            "uuid": str(uuid.uuid4()),
            "parent_tool_use_id": None,
            "message": {
                "id": f"msg_{uuid.uuid4().hex[:24]}",
                "type": "message",
                "role": "assistant",
                "model": self.name,
                "content": content,
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            },
        }

    def _command(self, prompt: Prompt, folder: Path) -> list[str | Path]:
        """Returns the command line. It has nothing of the conversation: other users of the machine can read it."""
        system = folder / "system"
        system.write_text(prompt.system, encoding="utf-8", errors="replace")
        servers = {"mcpServers": {SERVER: {"type": "sdk", "name": SERVER}}}
        return [
            self._program,
            *("--output-format", "stream-json", "--input-format", "stream-json", "--verbose"),
            *("--include-partial-messages", "--no-session-persistence", "--setting-sources="),
            *("--model", self.name, "--system-prompt-file", system, "--max-turns", "1"),
            *("--tools", "", "--strict-mcp-config", "--mcp-config", json.dumps(servers)),
            *("--allowedTools", f"mcp__{SERVER}"),
            *(("--effort", prompt.effort) if prompt.effort is not None else ()),
        ]

    def _environment_in(self, prompt: Prompt, folder: Path) -> dict[str, str]:
        own = {name: str(folder) for name in ("HOME", "CLAUDE_CONFIG_DIR", "TMPDIR", "PWD")}
        return {**self._environment, **own, "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(prompt.max_output_tokens)}


def _offered(tool: Any) -> Any:
    """Returns a tool that the model can call and that never runs."""
    from claude_agent_sdk import SdkMcpTool

    async def wait(_: Json) -> Any:
        await asyncio.Event().wait()  # until the program is killed, which is when the model's message has ended

    return SdkMcpTool(name=tool.name, description=tool.description, input_schema=tool.parameters, handler=wait)


def _asked(message: Mapping[str, Any], *, query: bool) -> dict[str, Any]:
    said = {"role": "user", "content": message["content"]}
    return {"type": "user", "message": said, "parent_tool_use_id": None, "shouldQuery": query}


async def _one(message: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield message


async def _messages_of(client: Any, cli: ClaudeCli) -> AsyncGenerator[dict[str, Any], None]:
    """Yields the raw events of the model's stream, as `event` messages, and the program's results and errors."""
    from claude_agent_sdk import AssistantMessage, ResultMessage, StreamEvent

    said = ""
    async with aclosing(client.receive_messages()) as messages:
        async for message in messages:
            if isinstance(message, StreamEvent):
                yield {"type": "event", "event": message.event}
            elif isinstance(message, AssistantMessage) and message.model == "<synthetic>":
                said = " ".join(getattr(block, "text", "") for block in message.content)
            elif isinstance(message, ResultMessage):
                yield {
                    "type": "result",
                    "is_error": message.is_error,
                    "status": getattr(message, "api_error_status", None),
                    "said": said or message.result or message.subtype,
                }
    raise await cli.failure()


def _raise_for(result: Mapping[str, Any]) -> None:
    """Raises ModelCallError if the result is that of a failed request. There is no status if there was no answer, or if
    the program has refused the prompt itself, as too long."""
    if not result["is_error"]:
        return
    failure = of_error({"error": {"message": result["said"]}}, status=result["status"])
    if result["status"] is None and failure.code == "provider_error":
        raise ModelCallError("connection", again=True, note="Claude Code got no answer", said=failure.said)
    raise failure


async def _as_body(messages: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    """Yields the model's events as Anthropic sends them (SSE), with the names of our tools.

    After a broken connection the program makes up the missing ends itself, with a `stop_reason` of null.
    """
    async for message in messages:
        if message["type"] == "result":
            _raise_for(message)
            return
        event = message["event"]
        block = event.get("content_block")
        if isinstance(block, dict) and block.get("type") == "tool_use":
            event = {**event, "content_block": {**block, "name": str(block.get("name")).removeprefix(PREFIX)}}
        yield b"data: " + compact_json(event).encode() + b"\n\n"
        if event.get("type") == "message_stop":
            return


def _remove_folders_of_the_dead() -> None:
    """Removes the folders that killed executors have left behind. They hold system prompts."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        with contextlib.suppress(FileNotFoundError):  # another executor was faster
            if pid.isdecimal() and not Path("/proc", pid).exists() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
