"""Reads a picture or a PDF in a process of its own, with little memory and time. It is executed, not imported.

    python -I child.py picture|pages|text LIMIT        input: fd 0; output: fd 1; a line of JSON: fd 2

`picture` writes the picture again, with at most LIMIT pixels read: without metadata, without what follows the picture,
with sides of at most LONGEST_SIDE. `pages` counts a PDF's pages. `text` writes a PDF's text, at most LIMIT characters.
"""

import io
import json
import resource
import sys
from typing import Any

MEMORY, SECONDS, OUTPUT = 1 << 30, 20, 1 << 25
LONGEST_SIDE = 2_000
MOST_BYTES = 3_700_000
"""Anthropic takes pictures of 5 MB in base64 (docs.claude.com, vision, read 2026-11-30)."""
FORMATS = ["PNG", "JPEG", "WEBP", "GIF"]


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


def _open_pdf() -> Any:
    import pypdfium2

    return pypdfium2.PdfDocument(sys.stdin.buffer.read())


def pages() -> dict[str, Any]:
    return {"pages": len(_open_pdf())}


def text(most: int) -> dict[str, Any]:
    document, left = _open_pdf(), most
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
        result = picture(int(limit)) if command == "picture" else pages() if command == "pages" else text(int(limit))
        sys.stdout.buffer.flush()
    except Exception as error:  # noqa: BLE001 - the boundary of a process that reads bytes of strangers
        result = {"error": "unreadable", "why": type(error).__name__}
    sys.stderr.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
