"""The tools of the house, one file each."""

from __future__ import annotations

from pathlib import Path

from backend.config import Settings
from executor.tools.add_understanding import AddUnderstanding
from executor.tools.documents import Library
from executor.tools.get_doc_page import GetDocPage
from executor.tools.search_docs import SearchDocs
from executor.tools.tool import Toolbox

OUR_DOCS = Path(__file__).resolve().parents[2] / "docs"


def open_toolbox(settings: Settings) -> Toolbox:
    """Every tool that the settings allow."""
    library = Library(settings.docs_dir or OUR_DOCS)
    return Toolbox([AddUnderstanding(), SearchDocs(library), GetDocPage(library)])
