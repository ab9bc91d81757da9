"""Runs the recipes of docs/recipes.md, exactly as written there, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.e2e.resumable import PACKAGE, PAGE, build_package
from tests.e2e.sdk import WEB
from tests.e2e.sse import counted
from tests.faults.scale import FULL
from tests.integration.running_api import RunningApi, new_id, running_api
from tests.integration.test_api_changed_questions import texts
from tests.integration.test_api_chat import ui
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import limit

RECIPE = re.compile(r"^```(\w+) ([\w./\[\]-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT = limit(60)
COMPILER = [
    "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler",
    "--jsx", "react-jsx", "--noEmit",
]  # fmt: skip
SLOW = "/stream 20 200"
"""An answer that lasts until a page was loaded again."""


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, auth_mode="none", max_running_turns=100) as api:
        yield api


@pytest.fixture(scope="module")
async def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes and the packages that they import."""
    await build_package()
    folder = tmp_path_factory.mktemp("recipes")
    modules = folder / "node_modules"
    modules.mkdir()
    for package in (WEB / "node_modules").iterdir():
        (modules / package.name).symlink_to(package)
    (modules / "@copilot-chat").mkdir()
    (modules / "@copilot-chat" / "resumable").symlink_to(PACKAGE)
    (folder / "package.json").write_text('{"type": "module"}')
    for _, name, code in RECIPE.findall((ROOT / "docs" / "recipes.md").read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    return folder


async def run(*command: str, folder: Path, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**os.environ, "no_proxy": "*"},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(stdin.encode()), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode() + errors.decode()
    return output.decode()


async def play(
    api: RunningApi, file: Path, *acts: dict[str, Any], session: str | None = None, sdk: str = "react"
) -> list[dict[str, Any]]:
    """Returns what the page shows after each act (tests/web/recipes.mjs)."""
    job = {"file": str(file), "base": f"http://127.0.0.1:{api.port}", "session": session, "sdk": sdk, "acts": acts}
    seen: list[dict[str, Any]] = json.loads(await run("node", "recipes.mjs", folder=WEB, stdin=json.dumps(job)))
    return seen


@pytest.mark.parametrize("page", ["Chat.vue", "Chat.svelte"])
async def test_a_page_sends_resumes_stops_and_shows_a_refusal(api: RunningApi, recipes: Path, page: str) -> None:
    session = new_id()
    _, whole, stopped, refused = await play(
        api, recipes / page,
        {"send": SLOW, "until": "3 4 5"},
        {"reload": True, "until": "18 19", "ready": True},
        {"send": "/stream 2000 100", "stop": True, "ready": True},
        {"send": " ", "alert": True},
        session=session,
    )  # fmt: skip
    assert (whole["user"], whole["assistant"]) == ([SLOW], [counted(20).strip()])
    assert len(stopped["assistant"]) == 2
    assert refused["alerts"] == ["The message has no text."]
    assert (await api.session(session))["chat_status"] == "idle"
    assert texts(await ui(api, session))[:2] == [SLOW, counted(20)]


async def test_assistant_ui_lists_threads_resumes_edits_and_stops(api: RunningApi, recipes: Path) -> None:
    acts = await play(
        api, recipes / "assistant-ui.tsx",
        {"send": SLOW, "until": "3 4 5"},
        {"reload": True},
        {"open": ".thread button", "until": "18 19"},
        {"ready": True},
        {"press": ".user button"},
        {"fill": ".edit", "text": "/stream 7"},
        {"press": ".save", "gone": "18 19"},
        {"until": "5 6", "ready": True},
        {"reload": True},
        {"open": ".thread button", "until": "5 6"},
        {"send": "/stream 2000 100", "until": "0 1 2 3 4 5 6 7"},
        {"stop": True},
        {"ready": True},
    )  # fmt: skip
    sent, resumed, edited, again = acts[0], acts[3], acts[7], acts[9]
    assert sent["assistant"][0].startswith("0 1 2 3 4 5")
    assert resumed["assistant"] == [counted(20).strip()]
    assert edited["user"] == again["user"] == ["/stream 7Edit"]
    assert edited["assistant"] == again["assistant"] == [counted(7).strip()]
    (session,) = (await api.http.get("/api/chat/sessions?limit=1")).json()["sessions"]
    stored = await api.session(session["id"], format="ui")
    assert texts(stored["messages"])[:2] == ["/stream 7", counted(7)]
    assert len(stored["branches"]) == 1  # the first question is kept
    assert (await api.session(session["id"]))["chat_status"] == "idle"


@pytest.mark.parametrize("sdk", ["react", "vue", "svelte"])
async def test_the_chatbot_template_sends_edits_and_resumes(api: RunningApi, recipes: Path, sdk: str) -> None:
    """The same with the `Chat` of Vue and of Svelte."""
    session = new_id()
    learn = '/tool add_understanding {"user_name":"Ada"}'
    acts = await play(
        api, recipes / "chatbot-transport.ts",
        {"send": "/say one"}, {"edit": "/say two"}, {"send": "/say three"}, {"change": "/say four"}, {"send": learn},
        {"resume": "/stream 20 100"}, {"busy": ["/stream 9 100", "/say six"]},
        session=session, sdk=sdk,
    )  # fmt: skip
    assert [act["error"] for act in acts] == [None] * 7
    assert acts[1]["shown"] == ["/say two", "two"]
    assert acts[3]["shown"] == ["/say four", "four"]
    assert "dynamic-tool" in acts[4]["kinds"][-1]
    assert acts[5]["shown"][-2:] == ["/stream 20 100", counted(20)]
    shown, stored = acts[6]["shown"], texts(await ui(api, session))
    assert stored[-4:] == ["/stream 9 100", counted(9), "/say six", "six"]
    if sdk == "svelte":  # it has ai 7.0.118
        assert len(shown) == len(stored) + 1  # the beginning of the first answer, too
    else:
        assert sorted(shown) == sorted(stored)


async def test_httpx_sse_loses_no_text(api: RunningApi, recipes: Path) -> None:
    session = await api.new_session()
    async with FaultProxy("127.0.0.1", api.port) as proxy:
        base = f"http://127.0.0.1:{proxy.port}"
        asking = asyncio.create_task(run(sys.executable, "ask_sse.py", base, session, "/stream 40 50", folder=recipes))
        await api.active_stream(session)
        await api.reading(1)
        async with proxy.failing(Mode.RESET):
            await api.reading(0)
        assert await asking == counted(40)
    assert texts(await ui(api, session)) == ["/stream 40 50", counted(40)]


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not installed")
async def test_curl_prints_an_answer(api: RunningApi, recipes: Path) -> None:
    session = new_id()
    base = f"http://127.0.0.1:{api.port}"
    assert await run("sh", "ask.sh", base, session, 'What is "äöü"?\n/stream 3 1', folder=recipes) == counted(3)
    assert texts(await ui(api, session))[0] == 'What is "äöü"?\n/stream 3 1'


@pytest.mark.skipif(not FULL, reason="make faults compiles them")
async def test_the_recipes_have_the_right_types(recipes: Path) -> None:
    compiler = str(PAGE / "node_modules" / "typescript" / "bin" / "tsc")
    files = ["assistant-ui.tsx", "chatbot-transport.ts", "app/api/chat/[[...path]]/route.ts"]
    await run("node", compiler, *COMPILER, *files, folder=recipes)
