"""Office files, written by other libraries than the ones that read them."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime

import docx
import xlsxwriter

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def document(*paragraphs: str, rows: int = 2) -> bytes:
    """Returns a Word document with a heading, paragraphs, a list, a table of `rows` rows and a header of its pages."""
    made = docx.Document()
    made.sections[0].header.paragraphs[0].text = "Not in the text"
    made.add_heading("A report", 1)
    for text in paragraphs:
        made.add_paragraph(text)
    made.add_paragraph("first point", style="List Bullet")
    table = made.add_table(rows, 2)
    for number in range(rows):
        table.cell(number, 0).text, table.cell(number, 1).text = f"name {number}", f"sum {number}"
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def workbook(rows: int = 1) -> bytes:
    """Returns a workbook with a sheet of `rows` rows, and a hidden one."""
    out = io.BytesIO()
    with xlsxwriter.Workbook(out) as made:
        day = made.add_format({"num_format": "yyyy-mm-dd"})
        sales = made.add_worksheet("Sales")
        sales.write_row(0, 0, ["Name", "Day", "Sum", "Half", "Paid"])
        for row in range(1, rows + 1):
            sales.write(row, 0, f'Ann, "A" {row}')
            sales.write_datetime(row, 1, datetime(2026, 1, 31), day)  # noqa: DTZ001 - sheets know no time zones
            sales.write_formula(row, 2, "=40+2", None, 42)
            sales.write(row, 3, 2.5)
            sales.write_boolean(row, 4, True)
        notes = made.add_worksheet("Notes")
        notes.hide()
        notes.write(0, 0, "a note")
    return out.getvalue()


def archive(**files: bytes) -> bytes:
    """Returns a ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


def with_password() -> bytes:
    """Returns what the beginning and the directory of a file with a password look like ([MS-OFFCRYPTO] 2.3)."""
    return OLE + bytes(1_024) + "EncryptedPackage".encode("utf-16-le") + bytes(512)


def open_document(kind: str = "spreadsheet") -> bytes:
    """Returns an OpenDocument file with one row: a text and a number."""
    name = f"application/vnd.oasis.opendocument.{kind}"
    spaces = "".join(
        f' xmlns:{one}="urn:oasis:names:tc:opendocument:xmlns:{one}:1.0"' for one in ("office", "table", "text")
    )
    cells = (
        '<table:table-cell office:value-type="string"><text:p>Größe</text:p></table:table-cell>'
        '<table:table-cell office:value-type="float" office:value="1.5"><text:p>1.5</text:p></table:table-cell>'
    )
    table = f'<table:table table:name="A"><table:table-row>{cells}</table:table-row></table:table>'
    body = f"<office:body><office:{kind}>{table}</office:{kind}></office:body>"
    content = f'<office:document-content{spaces} office:version="1.3">{body}</office:document-content>'
    entry = f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{name}"/>'
    manifest = f'<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">{entry}'
    return archive(
        **{
            "mimetype": name.encode(),
            "content.xml": content.encode(),
            "META-INF/manifest.xml": f"{manifest}</manifest:manifest>".encode(),
        }
    )
