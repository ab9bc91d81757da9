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
