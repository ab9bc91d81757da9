"""Reads a picture, a PDF or an Office file in a process of its own, with little memory and time. It is executed, not
imported.

    python -I child.py COMMAND LIMIT        input: fd 0; output: fd 1; a line of JSON: fd 2

`picture` writes the picture again, with at most LIMIT pixels read: without metadata, without what follows the picture,
with sides of at most LONGEST_SIDE. `pages` counts a PDF's pages. `office` tells the type of an Office file. `text`
writes the text of a PDF or an Office file, at most LIMIT characters: Markdown of a document, CSV of a workbook.
"""

import csv
import io
import json
import resource
import sys
import zipfile
from collections.abc import Iterator
from datetime import date, time
from typing import Any

MEMORY, SECONDS, OUTPUT = 1 << 30, 20, 1 << 25
LONGEST_SIDE = 2_000
MOST_BYTES = 3_700_000
"""Anthropic takes pictures of 5 MB in base64 (docs.claude.com, vision, read 2026-11-30)."""
FORMATS = ["PNG", "JPEG", "WEBP", "GIF"]
WORD, EXCEL = "application/vnd.openxmlformats-officedocument.wordprocessingml", "application/vnd.ms-excel"
SHEETS, CALC = (
    "application/vnd.openxmlformats-officedocument.spreadsheetml",
    "application/vnd.oasis.opendocument.spreadsheet",
)
TYPES = {
    f"{WORD}.document.main+xml": f"{WORD}.document",
    "application/vnd.ms-word.document.macroEnabled.main+xml": "application/vnd.ms-word.document.macroEnabled.12",
    f"{SHEETS}.sheet.main+xml": f"{SHEETS}.sheet",
    f"{EXCEL}.sheet.macroEnabled.main+xml": f"{EXCEL}.sheet.macroEnabled.12",
}
"""Types of files by the type of their main part (ECMA-376, part 1, 15.2; [MS-OFFMACRO2])."""
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The signature of the container of .xls and .doc, and of files with a password ([MS-CFB], [MS-OFFCRYPTO])."""
MOST_TYPES = 1 << 20
"""Bytes of [Content_Types].xml that are read."""
MOST_SHEETS = 100


def confine() -> None:
    limits = ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_FSIZE, OUTPUT))
    for name, most in (*limits, (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NPROC, 64)):
        resource.setrlimit(name, (most, most))


def picture(most_pixels: int) -> dict[str, Any]:
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # the size is checked below, before anything is decoded
    with Image.open(sys.stdin.buffer, formats=FORMATS) as given:
        if given.width * given.height > most_pixels:
            return {"error": "too_large", "width": given.width, "height": given.height}
        kind = given.format
        if kind == "JPEG":
            given.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
        clear = "A" in given.getbands() or "transparency" in given.info
        mode = "RGBA" if clear else "RGB"
        whole = given if given.mode == mode else given.convert(mode)  # each copy of a large one takes 160 MB
        whole.thumbnail((LONGEST_SIDE, LONGEST_SIDE), reducing_gap=2.0)
        upright = ImageOps.exif_transpose(whole)
    data, media_type = _written(upright, "JPEG" if kind == "JPEG" else "PNG")
    if len(data) > MOST_BYTES:
        data, media_type = _written(upright, "WEBP" if clear else "JPEG")
    while len(data) > MOST_BYTES:
        upright.thumbnail((upright.width * 3 // 4, upright.height * 3 // 4))
        data, media_type = _written(upright, "WEBP" if clear else "JPEG")
    sys.stdout.buffer.write(data)
    return {"media_type": media_type, "width": upright.width, "height": upright.height}


def _written(image: Any, form: str) -> tuple[bytes, str]:
    from PIL import Image

    out = io.BytesIO()
    bare = Image.new(image.mode, image.size)  # without the metadata of the original
    bare.paste(image)
    bare.save(out, form, **({} if form == "PNG" else {"quality": 85}))
    return out.getvalue(), f"image/{form.lower()}"


def _open_pdf(data: bytes) -> Any:
    import pypdfium2

    return pypdfium2.PdfDocument(data)


def pages() -> dict[str, Any]:
    return {"pages": len(_open_pdf(sys.stdin.buffer.read()))}


def office() -> dict[str, Any]:
    data = sys.stdin.buffer.read()
    if data.startswith(OLE):
        if _is_workbook(data):
            return {"media_type": EXCEL}
        return {"error": "protected" if "EncryptedPackage".encode("utf-16-le") in data else "old_format"}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
        if "mimetype" in names:
            found = CALC if archive.open("mimetype").read(len(CALC) + 1) == CALC.encode() else None
        elif "[Content_Types].xml" in names:
            said = archive.open("[Content_Types].xml").read(MOST_TYPES).decode("utf-8", "replace")
            found = next((media_type for main, media_type in TYPES.items() if f'"{main}"' in said), None)
        else:
            found = None
    return {"media_type": found} if found else {"error": "unsupported"}


def _is_workbook(data: bytes) -> bool:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        return bool(CalamineWorkbook.from_filelike(io.BytesIO(data)).sheet_names)
    except CalamineError:
        return False


def text(most: int) -> dict[str, Any]:
    data = sys.stdin.buffer.read()
    if data.startswith(b"%PDF-"):
        return pdf_text(data, most)
    if not data.startswith(OLE) and _has_document(data):
        return _write(iter([_markdown_of(data)]), most)
    return _write(_sheets_of(data), most)


def _write(pieces: Iterator[str], most: int) -> dict[str, Any]:
    left = most
    for piece in pieces:
        sys.stdout.buffer.write(piece[:left].encode("utf-8", "replace"))
        left -= len(piece)
        if left < 0:
            return {"whole": False}
    return {"whole": True}


def _has_document(data: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return "mimetype" not in archive.namelist() and any(name.startswith("word/") for name in archive.namelist())


def _markdown_of(data: bytes) -> str:
    """Returns the text of a document with its tables and without pictures, comments and deleted words."""
    import mammoth
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    without = mammoth.images.img_element(lambda _: {"src": ""})
    html = mammoth.convert_to_html(io.BytesIO(data), convert_image=without).value
    soup = BeautifulSoup(html, "html.parser")
    for words in soup.find_all(string=lambda text: bool(text and "|" in text)):
        if words.find_parent("table"):  # where a bar would begin another cell
            words.replace_with(words.replace("|", r"\|"))
    made: str = MarkdownConverter(heading_style="ATX", strip=["a", "img"]).convert_soup(soup)
    return made.strip() + "\n"


def _sheets_of(data: bytes) -> Iterator[str]:
    """Yields a list of the sheets, and then the rows of each: the values that were computed last, and no formulas."""
    from python_calamine import CalamineWorkbook, SheetVisibleEnum

    book = CalamineWorkbook.from_filelike(io.BytesIO(data))
    hidden = {one.name for one in book.sheets_metadata if one.visible is not SheetVisibleEnum.Visible}
    names = book.sheet_names[:MOST_SHEETS]
    yield f"Sheets: {', '.join(book.sheet_names[: 2 * MOST_SHEETS])}\n"
    for name in names:
        sheet = book.get_sheet_by_name(name)
        what = ", hidden" if name in hidden else ""
        yield f"\n## {name} ({sheet.height} rows, {sheet.width} columns{what})\n"
        for row in sheet.iter_rows():
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow([_cell(value) for value in row])
            yield line.getvalue().rstrip(",\n") + "\n"


def _cell(value: object) -> object:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value.isoformat() if isinstance(value, date | time) else value


def pdf_text(data: bytes, most: int) -> dict[str, Any]:
    document, left = _open_pdf(data), most
    for number in range(len(document)):
        said = document[number].get_textpage().get_text_bounded(errors="replace")[:left]
        sys.stdout.buffer.write((said + "\n").encode("utf-8", "replace"))
        left -= len(said)
        if left <= 0:
            break
    return {"pages": len(document), "whole": left > 0}


def main(command: str, limit: str) -> None:
    confine()
    try:
        limited = {"picture": picture, "text": text}
        result = limited[command](int(limit)) if command in limited else {"pages": pages, "office": office}[command]()
        sys.stdout.buffer.flush()
    except Exception as error:  # noqa: BLE001 - the boundary of a process that reads bytes of strangers
        result = {"error": "unreadable", "why": type(error).__name__}
    sys.stderr.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
