"""The tools of the house, one file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backend.config import Settings
from executor.tools.add_understanding import AddUnderstanding
from executor.tools.check_operation_status import CheckOperationStatus
from executor.tools.create_agent import CreateAgent
from executor.tools.customize_agent import CustomizeAgent
from executor.tools.documents import Library
from executor.tools.edit_agent import EditAgent
from executor.tools.find_library_agent import FindLibraryAgent
from executor.tools.get_doc_page import GetDocPage
from executor.tools.search_docs import SearchDocs
from executor.tools.templates import Templates
from executor.tools.tool import Toolbox, ToolSource

if TYPE_CHECKING:  # importing it costs the start of an executor that has no generator
    from executor.generator.client import Generator

OUR_DOCS = Path(__file__).resolve().parents[2] / "docs"


def open_toolbox(settings: Settings, generator: Generator | None = None, sources: Sequence[ToolSource] = ()) -> Toolbox:
    """Every tool that the settings allow, and those of the sources. Raises ConfigError."""
    library, templates = Library(settings.docs_dir or OUR_DOCS), Templates(settings.agent_templates_dir)
    return Toolbox(
        [
            AddUnderstanding(),
            FindLibraryAgent(),
            SearchDocs(library),
            GetDocPage(library),
            CreateAgent(generator),
            EditAgent(generator),
            CustomizeAgent(generator, templates),
            CheckOperationStatus(),
        ],
        sources,
    )
