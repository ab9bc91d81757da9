"""Word documents and workbooks: what is stored, and what models and tools read of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator

import pytest

from backend.errors import UnreadableFile
from backend.files.kinds import DOCX, XLSX, Kind, kind_of
from backend.files.reading import MAX_TEXT, FileReader
from tests.integration.running_api import RunningApi, running_api
from tests.integration.test_files import post
from tests.office_files import OLE, archive, document, open_document, with_password, workbook

SALES = """\
Sheets: Sales, Notes

## Sales (2 rows, 5 columns)
Name,Day,Sum,Half,Paid
"Ann, ""A"" 1",2026-01-31,42,2.5,True
"""


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    folder = f"file://{tmp_path_factory.mktemp('files')}"
    async with running_api(postgres_dsn, redis_dsn, files_url=folder, max_pdf_bytes=200_000) as api:
        yield api


@pytest.fixture(scope="module")
def reader() -> FileReader:
    return FileReader()


@pytest.mark.parametrize("name", ["report.docx", "report", "report.xlsx", "report.pdf"])
async def test_the_content_tells_the_type_and_not_the_name(api: RunningApi, name: str) -> None:
    for data, media_type in ((document(), DOCX), (workbook(), XLSX)):
        user = api.as_user()
        answer = await post(api, data, user, name)
        assert (answer.status_code, answer.json()["mediaType"]) == (201, media_type)
        read = await api.http.get(answer.json()["url"], headers=user)
        assert read.content == data
        assert read.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive(**{"a.txt": b"a"}), "Files may be"),
        (archive(**{"[Content_Types].xml": b"<Types/>", "word/document.xml": b""}), "Files may be"),
        (archive(mimetype=b"application/epub+zip"), "Files may be"),
        (with_password(), "has a password"),
        (OLE + bytes(2_000), "older format"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_reason(api: RunningApi, data: bytes, words: str) -> None:
    answer = await post(api, data, api.as_user(), "a.docx")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_file")
    assert words in answer.json()["detail"]


async def test_half_a_document_and_one_that_is_too_large_are_refused(api: RunningApi) -> None:
    broken = await post(api, document()[:5_000], api.as_user(), "a.docx")
    assert (broken.status_code, broken.json()["code"]) == (422, "unreadable_file")
    large = await post(api, document() + bytes(200_000), api.as_user(), "a.docx")
    assert (large.status_code, large.json()["code"]) == (413, "file_too_large")


async def test_a_document_becomes_markdown(reader: FileReader) -> None:
    text = (await reader.text_of(document("Grüße & <tags>", "* not a list"))).decode()
    assert text.startswith("# A report\n\nGrüße & <tags>\n")
    assert "* first point" in text
    assert "| name 1 | sum 1 |" in text
    assert "Not in the text" not in text


def replaced(given: bytes, old: str, new: str) -> bytes:
    """Returns the document with another text in the XML of its body."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(given)) as before, zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            data = before.read(name)
            after.writestr(name, data.replace(old.encode(), new.encode()) if name == "word/document.xml" else data)
    return out.getvalue()


async def test_inserted_words_are_read_and_deleted_ones_are_not(reader: FileReader) -> None:
    body = "<w:p><w:ins><w:r><w:t>kept</w:t></w:r></w:ins><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
    text = (await reader.text_of(replaced(document(), "<w:body>", "<w:body>" + body))).decode()
    assert text.startswith("kept\n")
    assert "gone" not in text


async def test_a_bar_in_a_cell_begins_no_other_cell(reader: FileReader) -> None:
    text = (await reader.text_of(replaced(document("left | right"), "name 1", "yes | no"))).decode()
    assert r"| yes \| no | sum 1 |" in text
    assert "left | right" in text


async def test_a_bar_in_a_table_within_a_cell_is_escaped_once(reader: FileReader) -> None:
    table = "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>in | out</w:t></w:r></w:p></w:tc></w:tr></w:tbl><w:p/>"
    text = (await reader.text_of(replaced(document(), "<w:tc>", "<w:tc>" + table))).decode()
    assert r"in \| out" in text
    assert r"\\|" not in text


async def test_a_workbook_becomes_its_values_sheet_by_sheet(reader: FileReader) -> None:
    text = (await reader.text_of(workbook())).decode()
    assert text == SALES + "\n## Notes (1 rows, 1 columns, hidden)\na note\n"


async def test_a_sheet_of_open_document_is_read_and_a_text_of_it_is_not(api: RunningApi, reader: FileReader) -> None:
    answer = await post(api, open_document(), api.as_user(), "a.ods")
    assert answer.json()["mediaType"] == "application/vnd.oasis.opendocument.spreadsheet"
    assert (await reader.text_of(open_document())).decode().endswith("\nGröße,1.5\n")
    refused = await post(api, open_document("text"), api.as_user(), "a.odt")
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_file")


async def test_a_long_one_is_cut(reader: FileReader) -> None:
    for data in (workbook(3_000), document("word " * 20_000)):
        assert len((await reader.text_of(data)).decode()) == MAX_TEXT


async def test_what_is_no_office_file_inside_has_no_text(reader: FileReader) -> None:
    for data in (archive(**{"word/document.xml": b"<"}), archive(a=b""), OLE + bytes(2_000)):
        with pytest.raises(UnreadableFile):
            await reader.text_of(data)


def test_every_office_type_has_the_kind_office() -> None:
    for media_type in (DOCX, XLSX, "application/vnd.ms-excel", "application/vnd.oasis.opendocument.spreadsheet"):
        assert kind_of(media_type) is Kind.OFFICE
