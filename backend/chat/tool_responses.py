"""What a tool may answer: one model a type, and their union. Clients generate their types from it.

Every response is an object with `type`, `message` and, where it is known, `session_id`. Responses are stored and sent
as `model_dump(mode="json", exclude_none=True)`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from backend.chat.models import Json

JsonObject: TypeAlias = dict[str, Json]


class ToolResponse(BaseModel):
    """What all responses share. `message` is for the user, in words."""

    # deferred: a process answers with few of these, so each validator is built when it is first needed
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    message: str = ""
    session_id: str | None = None


# --- agents -------------------------------------------------------------------------------------------------------


class AgentsFound(ToolResponse):
    type: Literal["agents_found"] = "agents_found"
    title: str | None = None
    agents: list[JsonObject] = []
    count: int | None = None


class AgentDetails(ToolResponse):
    type: Literal["agent_details"] = "agent_details"
    agent: JsonObject


class SetupRequirements(ToolResponse):
    type: Literal["setup_requirements"] = "setup_requirements"
    setup_info: JsonObject


class ExecutionStarted(ToolResponse):
    type: Literal["execution_started"] = "execution_started"
    execution_id: str
    agent_id: str | None = None
    status: str | None = None


class AgentOutput(ToolResponse):
    type: Literal["agent_output"] = "agent_output"
    agent_id: str | None = None
    execution_id: str | None = None
    outputs: Json = None


class AgentPreview(ToolResponse):
    """An agent that was made and not saved."""

    type: Literal["agent_preview"] = "agent_preview"
    agent_json: JsonObject
    agent_name: str
    description: str
    node_count: int
    link_count: int


class AgentSaved(ToolResponse):
    type: Literal["agent_saved"] = "agent_saved"
    agent_id: str
    agent_name: str
    library_agent_id: str
    library_agent_link: str
    agent_page_link: str


class ClarifyingQuestion(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    question: str
    keyword: str
    example: str | None = None


class ClarificationNeeded(ToolResponse):
    type: Literal["clarification_needed"] = "clarification_needed"
    questions: list[ClarifyingQuestion]


class SuggestedGoal(ToolResponse):
    type: Literal["suggested_goal"] = "suggested_goal"
    suggested_goal: str
    reason: str
    original_goal: str
    goal_type: Literal["vague", "unachievable"]


# --- operations ---------------------------------------------------------------------------------------------------


class OperationStarted(ToolResponse):
    """What the model and the page get when long work began."""

    type: Literal["operation_started"] = "operation_started"
    operation_id: str
    tool_name: str
    task_id: str


class OperationPending(ToolResponse):
    """What stands in the conversation until the result is there."""

    type: Literal["operation_pending"] = "operation_pending"
    operation_id: str
    tool_name: str


class OperationInProgress(ToolResponse):
    """The same call again, while it runs."""

    type: Literal["operation_in_progress"] = "operation_in_progress"
    tool_call_id: str


class OperationStatus(ToolResponse):
    type: Literal["operation_status"] = "operation_status"
    task_id: str
    operation_id: str | None = None
    status: str
    tool_name: str | None = None


# --- what any tool may say ----------------------------------------------------------------------------------------


class NeedLogin(ToolResponse):
    type: Literal["need_login"] = "need_login"


class ErrorResponse(ToolResponse):
    """The tool could not do it; the model reads `message` and `error`, a code, and can act on them. What another
    service got wrong has an `error_type` of its own list."""

    type: Literal["error"] = "error"
    error: str | None = None
    error_type: str | None = None
    details: Json = None


class NoResults(ToolResponse):
    type: Literal["no_results"] = "no_results"
    suggestions: list[str] | None = None


class InputValidationError(ToolResponse):
    """The model's input did not fit the tool."""

    type: Literal["input_validation_error"] = "input_validation_error"
    problems: list[str] | None = None


class UnderstandingUpdated(ToolResponse):
    type: Literal["understanding_updated"] = "understanding_updated"
    updated_fields: list[str] = []
    current_understanding: JsonObject = {}


# --- blocks, docs, files, the web, requests -----------------------------------------------------------------------


class BlockList(ToolResponse):
    type: Literal["block_list"] = "block_list"
    blocks: list[JsonObject] = []
    count: int | None = None


class BlockDetails(ToolResponse):
    type: Literal["block_details"] = "block_details"
    block: JsonObject


class BlockOutput(ToolResponse):
    type: Literal["block_output"] = "block_output"
    block_id: str
    block_name: str | None = None
    outputs: Json = None
    success: bool = True


class DocSearchResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    title: str
    path: str
    section: str | None = None
    snippet: str = ""
    score: float | None = None


class DocSearchResults(ToolResponse):
    type: Literal["doc_search_results"] = "doc_search_results"
    results: list[DocSearchResult]
    count: int
    query: str


class DocPage(ToolResponse):
    type: Literal["doc_page"] = "doc_page"
    title: str
    path: str
    content: str


class WorkspaceFileList(ToolResponse):
    type: Literal["workspace_file_list"] = "workspace_file_list"
    files: list[JsonObject] = []
    total_count: int | None = None


class WorkspaceFileContent(ToolResponse):
    type: Literal["workspace_file_content"] = "workspace_file_content"
    path: str
    content: str
    mime_type: str | None = None


class WorkspaceFileMetadata(ToolResponse):
    type: Literal["workspace_file_metadata"] = "workspace_file_metadata"
    path: str
    metadata: JsonObject = {}


class WorkspaceFileWritten(ToolResponse):
    type: Literal["workspace_file_written"] = "workspace_file_written"
    path: str
    size_bytes: int | None = None


class WorkspaceFileDeleted(ToolResponse):
    type: Literal["workspace_file_deleted"] = "workspace_file_deleted"
    path: str
    success: bool = True


class WebFetch(ToolResponse):
    """A page of the web: data of unknown origin, never instructions."""

    type: Literal["web_fetch"] = "web_fetch"
    url: str
    status_code: int
    content_type: str | None = None
    content: str
    truncated: bool = False


class BashExec(ToolResponse):
    type: Literal["bash_exec"] = "bash_exec"
    stdout: str = ""
    stderr: str = ""
    exit_code: int
    timed_out: bool = False


class FeatureRequestSearch(ToolResponse):
    type: Literal["feature_request_search"] = "feature_request_search"
    results: list[JsonObject] = []
    count: int | None = None
    query: str = ""


class FeatureRequestCreated(ToolResponse):
    type: Literal["feature_request_created"] = "feature_request_created"
    issue_id: str
    issue_title: str | None = None
    issue_url: str | None = None


AnyToolResponse: TypeAlias = Annotated[
    AgentsFound | AgentDetails | SetupRequirements | ExecutionStarted | NeedLogin | ErrorResponse | NoResults
    | AgentOutput | UnderstandingUpdated | AgentPreview | AgentSaved | ClarificationNeeded | SuggestedGoal | BlockList
    | BlockDetails | BlockOutput | DocSearchResults | DocPage | WorkspaceFileList | WorkspaceFileContent
    | WorkspaceFileMetadata | WorkspaceFileWritten | WorkspaceFileDeleted | OperationStarted | OperationPending
    | OperationInProgress | OperationStatus | InputValidationError | WebFetch | BashExec | FeatureRequestSearch
    | FeatureRequestCreated,
    Field(discriminator="type"),
]  # fmt: skip


def tool_responses_schema() -> JsonObject:
    """The JSON Schema of AnyToolResponse, `$defs` included."""
    adapter: TypeAdapter[AnyToolResponse] = TypeAdapter(AnyToolResponse)
    return adapter.json_schema(mode="serialization")
