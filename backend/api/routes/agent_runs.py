"""Runs and schedules of the caller's agents, which the agent platform keeps. No conversation is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query

from backend.api.agent_run_schemas import (
    NewRun,
    NewSchedule,
    RunBegun,
    RunInputs,
    RunList,
    RunOut,
    RunSummary,
    ScheduleChanges,
    ScheduleList,
    ScheduleOut,
)
from backend.api.deps import AgentsUser, AKey, AnAgent, AppState, AUser
from backend.api.platform_access import asking_platform, platform_key
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.state import ApiState
from backend.chat.models import Json
from backend.chat.store import library
from backend.chat.store.library import RunnableAgent
from backend.errors import AgentNotFound, InvalidInputs, InvalidSchedule, RunNotFound, ScheduleNotFound
from backend.ids import UserId
from backend.platform.answers import Graph, Schedule
from backend.platform.inputs import fields_of, missing_inputs, wrong_inputs

if TYPE_CHECKING:
    from backend.platform.client import Platform

router = APIRouter(
    prefix="/api/library",
    tags=["agent runs"],
    route_class=CallerRoute,
    responses=responses(401, 403, 404, 409, 413, 422, 429, 503),
)
TAKES_JSON = responses(400, 408, 415)
AnId = Annotated[str, Path(min_length=1, max_length=200)]
AVersion = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Without it, the newest that is active.")]
Most = Annotated[int, Query(ge=1, le=100, description="The largest number of runs to return.")]


@router.get("/agents/{agent_id}/inputs")
async def read_inputs(api: AppState, user_id: AgentsUser, agent_id: AnAgent, version: AVersion = None) -> RunInputs:
    """Returns what a version of the agent takes, as a JSON Schema, as the agent platform reads its graph."""
    agent = await _agent(api, user_id, agent_id, version)
    async with asking_platform(api, AgentNotFound) as platform:
        graph = await _uploaded(platform, user_id, agent)
    return RunInputs(
        version=agent.version,
        input_schema=graph.input_schema,
        property_order=list(fields_of(graph.input_schema)),
        output_schema=graph.output_schema,
        trigger=graph.trigger,
    )


@router.post("/agents/{agent_id}/runs", status_code=202, responses=TAKES_JSON)
async def begin_run(api: AppState, user_id: AgentsUser, agent_id: AnAgent, new: NewRun, key: AKey) -> RunBegun:
    """Begins a run of the agent. Inputs that are missing or wrong are named in `fields`, and nothing runs."""
    agent = await _agent(api, user_id, agent_id, new.version)
    async with asking_platform(api, AgentNotFound) as platform:
        await _checked(platform, user_id, agent, new.inputs)
        id = await platform.begin(user_id, agent.graph_id, agent.version, new.inputs, platform_key(key))
    return RunBegun(execution_id=id, version=agent.version)


@router.get("/agents/{agent_id}/runs")
async def list_runs(api: AppState, user_id: AgentsUser, agent_id: AnAgent, limit: Most = 20) -> RunList:
    """Lists the newest runs of the agent, however they began: on the page, in a conversation, or by a schedule."""
    graph_id = await _graph_id(api, user_id, agent_id)
    async with asking_platform(api, AgentNotFound) as platform:
        found = await platform.runs(user_id, graph_id, limit)
    return RunList(runs=[RunSummary.of(run) for run in found[:limit]])


@router.get("/agents/{agent_id}/runs/{execution_id}")
async def read_run(api: AppState, user_id: AgentsUser, agent_id: AnAgent, execution_id: AnId) -> RunOut:
    """Returns a run with the status of its steps."""
    graph_id = await _graph_id(api, user_id, agent_id)
    async with asking_platform(api, RunNotFound) as platform:
        return RunOut.of(await platform.run(user_id, graph_id, execution_id))


@router.post("/agents/{agent_id}/runs/{execution_id}/cancel")
async def cancel_run(api: AppState, user_id: AgentsUser, agent_id: AnAgent, execution_id: AnId) -> RunOut:
    """Stops a run. One that has ended before stays as it is."""
    graph_id = await _graph_id(api, user_id, agent_id)
    async with asking_platform(api, RunNotFound) as platform:
        return RunOut.of(await platform.cancel(user_id, graph_id, execution_id))


@router.post("/agents/{agent_id}/schedules", status_code=201, responses=TAKES_JSON)
async def make_schedule(
    api: AppState, user_id: AgentsUser, agent_id: AnAgent, new: NewSchedule, key: AKey
) -> ScheduleOut:
    """Makes a schedule by which the agent runs. It keeps its version and its inputs."""
    agent = await _agent(api, user_id, agent_id, new.version)
    body: dict[str, Json] = {
        "version": agent.version,
        "node_input": new.inputs,
        "cron": new.cron,
        "timezone": new.timezone,
        "name": new.name or agent.name[:200],
    }
    async with asking_platform(api, AgentNotFound, wrong=InvalidSchedule) as platform:
        await _checked(platform, user_id, agent, new.inputs)
        made = await platform.make_schedule(user_id, agent.graph_id, body, platform_key(key))
        await _require_agent(api, platform, user_id, agent, made)
    return ScheduleOut.of(made)


@router.get("/agents/{agent_id}/schedules")
async def list_schedules(api: AppState, user_id: AgentsUser, agent_id: AnAgent) -> ScheduleList:
    """Lists the schedules of the agent, the oldest first."""
    graph_id = await _graph_id(api, user_id, agent_id)
    async with asking_platform(api, AgentNotFound) as platform:
        found = await platform.schedules(user_id, graph_id)
    return ScheduleList(schedules=[ScheduleOut.of(one) for one in found])


@router.get("/schedules")
async def list_all_schedules(api: AppState, user_id: AUser) -> ScheduleList:
    """Lists the schedules of all the caller's agents."""
    async with asking_platform(api, ScheduleNotFound) as platform:
        found = await platform.schedules(user_id)
    return ScheduleList(schedules=[ScheduleOut.of(one) for one in found])


@router.patch("/schedules/{schedule_id}", responses=TAKES_JSON)
async def change_schedule(api: AppState, user_id: AUser, schedule_id: AnId, changes: ScheduleChanges) -> ScheduleOut:
    """Pauses a schedule, or has it go on with its next time."""
    async with asking_platform(api, ScheduleNotFound, wrong=InvalidSchedule) as platform:
        return ScheduleOut.of(await platform.pause_schedule(user_id, schedule_id, paused=changes.paused))


@router.delete("/schedules/{schedule_id}", status_code=204)
async def delete_schedule(api: AppState, user_id: AUser, schedule_id: AnId) -> None:
    """Deletes a schedule. Runs that it has begun go on."""
    async with asking_platform(api, ScheduleNotFound) as platform:
        await platform.delete_schedule(user_id, schedule_id)


async def _agent(api: ApiState, user_id: UserId, agent_id: str, version: int | None) -> RunnableAgent:
    async with api.resources.database.connection() as c:
        return await library.runnable_agent(c, user_id, agent_id, version)


async def _graph_id(api: ApiState, user_id: UserId, agent_id: str) -> str:
    async with api.resources.database.connection() as c:
        return await library.graph_id_of(c, user_id, agent_id)


async def _require_agent(
    api: ApiState, platform: Platform, user_id: UserId, agent: RunnableAgent, made: Schedule
) -> None:
    """Raises AgentNotFound, after the schedule's deletion, if the agent was deleted while the schedule was made.

    If the agent is still there, its deletion deletes the schedule: it asks the platform again after its own commit.
    """
    try:
        await _graph_id(api, user_id, agent.id)
    except AgentNotFound:
        await platform.delete_schedule(user_id, made.id)
        raise


async def _uploaded(platform: Platform, user_id: UserId, agent: RunnableAgent) -> Graph:
    return await platform.put_graph(user_id, agent.graph_id, agent.version, agent.graph)


async def _checked(platform: Platform, user_id: UserId, agent: RunnableAgent, inputs: dict[str, Json]) -> None:
    """Gives the platform the agent. Raises InvalidInputs unless these are inputs that it takes."""
    schema = (await _uploaded(platform, user_id, agent)).input_schema
    problems = dict.fromkeys(missing_inputs(schema, inputs), "is required") | wrong_inputs(schema, inputs)
    if problems:
        fields = [{"path": f"body.inputs.{name[:100]}", "message": words} for name, words in problems.items()]
        raise InvalidInputs(fields=fields[:20])
