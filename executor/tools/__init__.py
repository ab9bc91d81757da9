"""CoPilot's own tools, one in each file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.chat.flows.files.workspace import Workspace
from backend.config import Settings
from backend.errors import ConfigError
from backend.files.reading import FileReader
from executor.tools.add_understanding import AddUnderstanding
from executor.tools.ask_user import AskUser
from executor.tools.check_operation_status import CheckOperationStatus
from executor.tools.create_agent import CreateAgent
from executor.tools.customize_agent import CustomizeAgent
from executor.tools.delete_workspace_file import DeleteWorkspaceFile
from executor.tools.documents import Documentation
from executor.tools.edit_agent import EditAgent
from executor.tools.feature_requests import CreateFeatureRequest, SearchFeatureRequests
from executor.tools.find_agent import FindAgent
from executor.tools.find_library_agent import FindLibraryAgent
from executor.tools.get_doc_page import GetDocPage
from executor.tools.list_workspace_files import ListWorkspaceFiles
from executor.tools.read_workspace_file import ReadWorkspaceFile
from executor.tools.search_docs import SearchDocs
from executor.tools.templates import Templates
from executor.tools.tool import Tool, Toolbox, ToolSource
from executor.tools.write_workspace_file import WriteWorkspaceFile
from executor.web import Web

if TYPE_CHECKING:  # an executor without a generator starts faster without it
    from backend.platform.client import Platform
    from executor.generator.client import Generator
    from executor.tools.github_issues import GitHubIssues

NO_WEB = Web()
BUILT_IN_DOCS = Path(__file__).resolve().parents[2] / "docs"


def open_toolbox(
    settings: Settings, generator: Generator | None = None, sources: Sequence[ToolSource] = (), web: Web = NO_WEB
) -> Toolbox:
    """Returns all of CoPilot's tools together with those of `sources`. Raises ConfigError for a bad folder."""
    return Toolbox(own_tools(settings, generator, web=web), sources)


def own_tools(
    settings: Settings, generator: Generator | None = None, platform: Platform | None = None, web: Web = NO_WEB
) -> list[Tool[Any]]:
    """Returns all of CoPilot's tools. Raises ConfigError for a bad folder."""
    folder = _existing(settings.docs_dir, "DOCS_DIR")
    documentation = Documentation(folder) if folder else built_in_documentation()
    github = _github(settings)
    templates = Templates(_existing(settings.agent_templates_dir, "AGENT_TEMPLATES_DIR"))
    return [
        AddUnderstanding(),
        FindLibraryAgent(),
        FindAgent(templates),
        SearchDocs(documentation),
        GetDocPage(documentation),
        CreateAgent(generator),
        EditAgent(generator),
        CustomizeAgent(generator, templates),
        CheckOperationStatus(),
        SearchFeatureRequests(github),
        CreateFeatureRequest(github),
        *([AskUser()] if settings.ask_user != "never" else []),
        *(_platform_tools(settings, platform) if platform is not None else []),
        *_web_tools(web),
    ]


def _github(settings: Settings) -> GitHubIssues | None:
    if settings.feature_requests_github is None:
        return None
    from executor.tools.github_issues import GitHubIssues  # few deployments use it

    return GitHubIssues(settings)


def workspace_tools(workspace: Workspace, reader: FileReader) -> list[Tool[Any]]:
    """Returns the tools for the files of a conversation."""
    return [
        ListWorkspaceFiles(workspace),
        ReadWorkspaceFile(workspace, reader),
        WriteWorkspaceFile(workspace),
        DeleteWorkspaceFile(workspace),
    ]


def _platform_tools(settings: Settings, platform: Platform) -> list[Tool[Any]]:
    from executor.tools.agent_schedules import AgentSchedulesTool  # an executor without a platform needs none of them
    from executor.tools.find_block import FindBlock
    from executor.tools.run_agent import RunAgent
    from executor.tools.run_block import RunBlock
    from executor.tools.view_agent_output import ViewAgentOutput

    return [
        RunAgent(platform, most_runs=settings.max_agent_runs, most_schedules=settings.max_agent_schedules),
        ViewAgentOutput(platform),
        AgentSchedulesTool(platform),
        FindBlock(platform),
        RunBlock(platform),
    ]


def _web_tools(web: Web) -> Iterator[Tool[Any]]:
    """Yields the tools for what is turned on. An executor imports only these."""
    if web.fetcher is not None:
        from executor.tools.web_fetch import FetchPage

        yield FetchPage(web.fetcher, web.count)
    if web.searcher is not None:
        from executor.tools.web_search import SearchWeb

        yield SearchWeb(web.searcher, web.count)


@cache
def built_in_documentation() -> Documentation:
    """Returns CoPilot's own pages. The first call of a process reads all of them, which takes 22 ms of CPU."""
    return Documentation(BUILT_IN_DOCS)


def _existing(folder: Path | None, setting: str) -> Path | None:
    """Returns the folder. Raises ConfigError if the setting names none that exists."""
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{setting}: there is no such folder")
    return folder
