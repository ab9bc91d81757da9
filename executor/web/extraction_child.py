"""Makes text of one page, in a process of its own with little memory and time. It is executed, not imported.

    python -I -B extraction_child.py html|lean|text|pdf LIMIT        input: fd 0; a JSON object: fd 1

The input is a line with a JSON object of `charset` and `url`, which may be empty, and then the page.
`html` writes the main part of a page as Markdown, `lean` all its words by a parser that is harder to tire, `text` what
it gets, decoded, and `pdf` the text of a PDF; all write at most LIMIT bytes. The object has `text`, `title` (or null)
and `cut`, or only `error`: `no_text`, `binary` or `unreadable`.
"""

import codecs
import json
import re
import resource
import sys
from typing import Any

MEMORY, SECONDS = 512 << 20, 5
MOST_PAGES = 2_000
SHORT = 200
"""Characters of a main part that may be a wrong guess."""
MOST_PAGE = 700_000
"""Characters of a page, without scripts and the like, in which its main part is looked for: about a second of CPU."""
MAX_TITLE = 300
UNSHOWN = ["script", "style", "template", "noscript", "svg", "iframe", "object"]
_META = re.compile(rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_XML = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})""", re.IGNORECASE)
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_WIDER = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030",
    "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs", "iso8859-11": "cp874", "tis-620": "cp874",
}  # fmt: skip
"""Encodings that browsers read as a wider one. Source: https://encoding.spec.whatwg.org/#names-and-labels (2026-11)."""
_READABLE = frozenset(
    {"utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp866", "cp874", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic"}
    | {"gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949", *(f"cp125{n}" for n in range(9))}
    | {f"iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)}
)
"""The only decoders that run: Python has some that are slow, or are no encodings of text."""
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def confine() -> None:
    """Limits this process. It writes no file, and a core dump would hold the page."""
    limits = ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_FSIZE, 0))
    for name, most in (*limits, (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(name, (most, most))


def known(label: str) -> str | None:
    """Returns the name of the encoding that a page names, or None if it is none of text."""
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    name = _WIDER.get(name, name)
    return name if name in _READABLE else None


def decode(data: bytes, charset: str) -> str:
    """Decodes by byte order mark, header, the page's own declaration, and else UTF-8 or Windows-1252."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    declared = [found[1].decode() for found in (_XML.search(data[:512]), _META.search(data[:4_096])) if found]
    for label in (charset, *declared):
        if readable := known(label):
            # a page that names UTF-16 in bytes that this pattern reads is in no such encoding
            lies = label != charset and readable.startswith("utf-16")
            return data.decode("utf-8" if lies else readable, "replace")
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data)  # its end may be in the middle of a character
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def of_text(data: bytes, charset: str) -> dict[str, Any]:
    text = decode(data, charset)
    return {"error": "binary"} if "\0" in text[:4_096] else {"text": text.replace("\0", ""), "title": None}


def of_html(data: bytes, charset: str, url: str, *, lean: bool) -> dict[str, Any]:
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(_DECLARATION.sub("", decode(data, charset).replace("\0", "")))
    heading = tree.css_first("title")
    title = " ".join(heading.text().split())[:MAX_TITLE] if heading else ""
    tree.strip_tags(UNSHOWN, recursive=True)
    page = "" if lean else tree.html or ""
    main, cut = main_part(page[:MOST_PAGE], url) if page else "", len(page) > MOST_PAGE
    if len(main) < SHORT and tree.body is not None:
        lines = (line.strip() for line in tree.body.text(separator="\n").splitlines())
        words = "\n".join(line for line in lines if line)
        main, cut = (words, False) if len(words) > 3 * len(main) else (main, cut)
    return {"text": main, "title": title or None, "cut": cut} if main.strip() else {"error": "no_text"}


def main_part(page: str, url: str) -> str:
    from trafilatura import extract

    found = extract(
        page, url=url, output_format="markdown", favor_recall=True,
        include_comments=True, include_formatting=True, include_links=True, include_tables=True,
    )  # fmt: skip
    return found or ""


def of_pdf(data: bytes, limit: int) -> dict[str, Any]:
    import pypdfium2

    document = pypdfium2.PdfDocument(data)
    title = document.get_metadata_value("Title")
    pages: list[str] = []
    left, number = limit, 0
    for number in range(min(len(document), MOST_PAGES)):
        pages.append(document[number].get_textpage().get_text_bounded(errors="replace").replace("\r\n", "\n").strip())
        left -= len(pages[-1])
        if left < 0:
            break
    text = "\n\n".join(page for page in pages if page).replace("\0", "")
    if not text:
        return {"error": "no_text"}
    return {"text": text, "title": " ".join(title.split())[:MAX_TITLE] or None, "cut": number + 1 < len(document)}


def shortened(made: dict[str, Any], limit: int) -> dict[str, Any]:
    """Returns the object with a text of at most `limit` bytes, without lone surrogates."""
    if "text" not in made:
        return made
    data = made["text"].strip().encode("utf-8", "replace")
    title = made["title"].encode("utf-8", "replace").decode() if made["title"] else None
    cut = made.get("cut", False) or len(data) > limit
    return {"text": data[:limit].decode("utf-8", "ignore"), "title": title, "cut": cut}


def main(kind: str, most: str) -> None:
    confine()
    about, limit = json.loads(sys.stdin.buffer.readline()), int(most)
    data, charset = sys.stdin.buffer.read(), about["charset"]
    try:
        if kind == "pdf":
            made = of_pdf(data, limit)
        elif kind == "text":
            made = of_text(data, charset)
        else:
            made = of_html(data, charset, about["url"], lean=kind == "lean")
        made = shortened(made, limit)
    except Exception:  # noqa: BLE001 - the boundary of a process that reads bytes of strangers
        made = {"error": "unreadable"}
    sys.stdout.buffer.write(json.dumps(made).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
