"""The context that all attempts of one executor share: model, tools, limits, heartbeat, metrics and side jobs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from backend.chat.models import ModelChoice, Task, Usage
from backend.chat.outcomes import Operation
from backend.chat.resources import Resources
from backend.chat.store.instructions import Instructions
from backend.config import Settings
from executor.agent.agent import Agent, Answerer, Limits, Load, Row
from executor.agent.calls import ToolHost
from executor.heartbeat import Heartbeat
from executor.llm.failures import CODES
from executor.llm.files import planned
from executor.llm.fitting import fit
from executor.llm.history import to_prompt_messages
from executor.llm.measured import MeasuredModel
from executor.llm.model import Prompt
from executor.llm.models import Models, OpenModel
from executor.llm.titles import make_title
from executor.metrics import ExecutorMetrics
from executor.operations import WaitingCalls
from executor.tools.approval import ApprovalRules
from executor.tools.ask_user import ASK_USER
from executor.tools.context import owner_of_session
from executor.tools.remote_work import WorkServer
from executor.tools.tool import Toolbox
from executor.turns.continuation import about_operation
from executor.turns.files import FileCache, PromptFiles
from executor.turns.page_tools import TurnToolbox
from executor.turns.prompt import system_prompt, with_instructions

if TYPE_CHECKING:  # an executor without a generator starts faster without it
    from backend.platform.client import Platform
    from executor.generator.client import Generator
    from executor.mcp.connection import Connection

MAX_SIDE_JOBS = 256
MAX_WORK = 128
"""Side jobs beyond which no work of an operation is started; the rest is reserved for the turns' own jobs."""
WAITING_SHARE = 4
"""One slot in WAITING_SHARE may hold a turn whose call waits for a user; the others stay free for other turns."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SummaryModel:
    """The model that summarises a conversation. `makers_room` is that of its prompts (`Prompt.room`), `room` that of
    prompts for the model that answers in the conversation."""

    room: int
    maker: Answerer
    makers_room: int


class ExecutorContext:
    """The context of one executor. `generator` and `platform` are None if none is configured."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        toolbox: Toolbox,
        heartbeat: Heartbeat,
        generator: Generator | None = None,
        tool_servers: Sequence[Connection] = (),
        platform: Platform | None = None,
    ) -> None:
        self._settings = settings
        self.tool_servers = tool_servers
        self.platform = platform
        self.metrics = ExecutorMetrics()
        self.metrics.note_slots(settings.executor_concurrency)
        self._models = models
        for name in models.names:
            self.metrics.models.expect(name, CODES)
        self._toolbox = toolbox
        self._system = system_prompt(settings)
        self._jobs: set[asyncio.Future[Any]] = set()
        self.approval = ApprovalRules.parse(settings.tool_approval)
        self.waits = WaitingCalls(max(1, settings.executor_concurrency // WAITING_SHARE))
        self.heartbeat = heartbeat
        self.file_cache = FileCache()
        self.generator = generator

    def work_servers(self) -> list[WorkServer]:
        """Returns the servers that do the work of operations: those of MCP tools, and the agent platform."""
        servers: list[WorkServer] = []
        if self.tool_servers:
            from executor.mcp.task_outcomes import McpWork  # importing the SDK takes half a second

            servers += map(McpWork, self.tool_servers)
        if self.platform is not None:
            from executor.tools.agent_runs import AgentRuns  # it imports the platform's answers

            servers.append(AgentRuns(self.platform))
        return servers

    @property
    def model_name(self) -> str:
        """The name of the default model at its provider."""
        return self._models.default.model.name

    def agent(
        self,
        task: Task,
        host: ToolHost,
        operation: Operation | None,
        choice: ModelChoice,
        told: Instructions,
        load: Load | None = None,
    ) -> Agent:
        """Returns the loop of model and tools for one attempt. `operation` is the one that a continuation is about,
        `load` reads the files of a prompt.
        """
        settings = self._settings
        limits = Limits(settings.max_steps, settings.max_turn_tokens, settings.tool_timeout)
        label = f"{task.number}-{task.attempt}"
        chosen = self._models.choose(choice.model)
        asked = [opened for opened in (chosen, self._models.fallback_of(chosen)) if opened is not None]
        answerers = [self._answerer(opened, task, choice, told, operation) for opened in asked]
        return Agent(answerers, self._toolbox_of(task), host, limits, label=label, load=load)

    def prompt_files(self, resources: Resources, task: Task) -> PromptFiles:
        """Returns the reader of the files in the prompts of the task's conversation."""
        return PromptFiles(resources, self.file_cache, task.session_id, owner_of(task))

    def summarising(self, task: Task, choice: ModelChoice, told: Instructions) -> SummaryModel:
        """Returns what a summary of the task's conversation needs."""
        chosen = self._models.choose(choice.model)
        makes = self._models.summary or chosen
        maker, reader = (self._answerer(opened, task, choice, told) for opened in (makes, chosen))
        return SummaryModel(reader.prompt_of(()).room, maker, maker.prompt_of(()).room)

    def _answerer(
        self,
        opened: OpenModel,
        task: Task,
        choice: ModelChoice,
        told: Instructions,
        operation: Operation | None = None,
    ) -> Answerer:
        model = MeasuredModel(opened.model, self.metrics.models)
        system = partial(self._system_of, task, told if self._settings.user_instructions else Instructions())
        effort, toolbox = opened.effort(choice.effort), self._toolbox_of(task)
        prompt_of = partial(self._prompt_of, opened, effort, task, operation, toolbox, system)
        return Answerer(opened.id, model, prompt_of, partial(self._models.priced, opened))

    def _toolbox_of(self, task: Task) -> Toolbox:
        withheld = () if self.can_ask(task) else (ASK_USER,)
        return TurnToolbox(self._toolbox.of_owner(owner_of(task)), task.request.page_tools, withheld)

    def can_ask(self, task: Task) -> bool:
        """Returns True if the user can be asked during this task. Nobody can be asked in a temporary session."""
        request = task.request
        return not request.temporary and (self._settings.ask_user == "always" or request.takes_questions)

    async def prepare_tools(self, task: Task) -> None:
        """Finds out which tools the user of the task has. Await it before the first prompt of an attempt."""
        await self._toolbox.prepare(owner_of(task), task.request.claims)

    async def load_prices(self) -> None:
        """Loads what the costs of answers need, once. Await it before the first turn of a process."""
        await self._models.load_prices()

    def _prompt_of(
        self,
        opened: OpenModel,
        effort: str | None,
        task: Task,
        operation: Operation | None,
        toolbox: Toolbox,
        system: Callable[[], str],
        rows: Sequence[Row],
    ) -> Prompt:
        cache_key = hashlib.sha256(task.session_id.encode()).hexdigest()[:32]
        accepts = opened.accepts - opened.model.refused_kinds()
        messages = planned(to_prompt_messages(rows), accepts, opened.context_tokens)
        prompt = Prompt(system(), messages, toolbox.specs, opened.max_output_tokens, cache_key, effort=effort)
        about = prompt if operation is None else about_operation(prompt, operation, rows)
        return fit(about, opened.context_tokens, opened.model.room(about))

    def _system_of(self, task: Task, told: Instructions) -> str:
        """Returns the operator's prompt, and after it what changes from user to user and then from session to session,
        so that a provider's cache keeps the beginning."""
        system = with_instructions(self._system, self._toolbox.of_owner(owner_of(task)).instructions)
        texts = {"the user": told.user, "this conversation": told.session}
        texts["the user's client"] = task.request.instructions
        for whose, text in texts.items():
            if text is not None:
                system += f"\n\n# Instructions of {whose}\n\n{text}"
        return system

    async def title_of(self, text: str) -> tuple[str, Usage]:
        """Returns a title, and what it has cost."""
        opened, used = self._models.title, [Usage()]
        if opened is None:
            return await make_title(None, text), Usage()
        title = await make_title(MeasuredModel(opened.model, self.metrics.models), text, count=used.append)
        return title, self._models.priced(opened, used[-1]) if used[-1].total_tokens else Usage()

    def start_side_job(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Starts a side job of a turn. If it fails, that is only logged; if MAX_SIDE_JOBS run, it is cancelled."""
        job = asyncio.ensure_future(_logged(work))
        if len(self._jobs) >= MAX_SIDE_JOBS:
            job.cancel()
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def start_work(self, work: Coroutine[Any, Any, None]) -> bool:
        """Starts the work of an operation as a side job. Returns False, and closes it, if MAX_WORK side jobs run."""
        if len(self._jobs) >= MAX_WORK:
            work.close()
            return False
        self.start_side_job(work)
        return True

    async def end_side_jobs(self, limit: float) -> None:
        """Waits up to `limit` seconds for the side jobs, then cancels those that still run."""
        if not self._jobs:
            return
        _, late = await asyncio.wait(self._jobs, timeout=limit)
        for job in late:
            job.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def owner_of(task: Task) -> str:
    return owner_of_session(task.user_id, task.session_id)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:  # the boundary of side jobs: a turn must not fail because its title did
        logger.exception("side job failed")
