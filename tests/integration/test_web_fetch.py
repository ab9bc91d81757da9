"""Pages are fetched from a real server of this process; only these tests permit its address and its port."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from backend.outside_addresses import OutsideAddresses
from executor.web import fetching
from executor.web.failures import WebFailure
from executor.web.fetching import FetchedPage, Fetcher, open_fetcher
from tests.fakes.site import Site, dripping, moved, page, site
from tests.servers.tls import make_certificates
from tests.speed import limit

LOOPBACK = OutsideAddresses("127.0.0.0/8")
LINES = [
    f"<p>Paragraph {n} has enough words, as one of an article has, and <a href='/p{n}'>a link</a>.</p>"
    for n in range(9)
]
ARTICLE = (
    f"<html><head><title>A  title</title></head><body><nav>Home</nav><main><h1>Head</h1>{''.join(LINES)}</main></body>"
)


class Names(AbstractResolver):
    """Answers each question with the next of `answers`, then with the last."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        address = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def fetching_from(pages: dict[str, object]) -> AsyncIterator[tuple[Site, Fetcher]]:
    async with site(pages) as one, open_fetcher(LOOPBACK, {one.port, 80, 443}) as fetcher:  # type: ignore[arg-type]
        yield one, fetcher


async def fetched(answer: object) -> FetchedPage:
    async with fetching_from({"/": answer}) as (one, fetcher):
        return await fetcher.fetch(one.url("/"))


async def refused(answer: object) -> str:
    with pytest.raises(WebFailure) as failure:
        await fetched(answer)
    return failure.value.code


# --- what is sent and read --------------------------------------------------------------------------------------------


async def test_a_page_becomes_markdown_and_the_request_says_who_asks() -> None:
    async with fetching_from({"/a": page(ARTICLE, set_cookie="a=b")}) as (one, fetcher):
        read = await fetcher.fetch(f"  {one.url('/a#part')}  ")
        assert (read.url, read.status, read.title, read.cut) == (one.url("/a"), 200, "A title", False)
        assert read.text.startswith("# Head\n\nParagraph 0 has")
        assert f"[a link]({one.url('/p8')})" in read.text
        await fetcher.fetch(one.url("/a"))
        for head in one.requests:
            assert head.startswith("GET /a HTTP/1.1")
            assert "CoPilot/" in head
            assert not {"cookie:", "referer:", "authorization:"} & {
                line.split(" ")[0].lower() for line in head.split("\r\n")
            }


async def test_the_source_of_a_page_is_given_on_demand() -> None:
    async with fetching_from({"/": page(ARTICLE)}) as (one, fetcher):
        assert (await fetcher.fetch(one.url("/"), extract_text=False)).text == ARTICLE


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b'{"a": [1]}', "application/json", '{"a": [1]}'),
        ("grün".encode(), "text/plain", "grün"),
        ("Привет".encode("cp1251"), "text/plain; charset=windows-1251", "Привет"),
        ("日本".encode("shift_jis"), 'text/plain; charset="Shift_JIS"', "日本"),
        ("a – b".encode("cp1252"), "text/plain; charset=iso-8859-1", "a – b"),
        ("mark".encode("utf-16"), "text/plain; charset=ascii", "mark"),
        (b"no type", None, "no type"),
        (b"plain", "text/plain; charset=punycode", "plain"),
        (b"<svg/>", "image/svg+xml", "<svg/>"),
    ],
)
async def test_texts_are_decoded(body: bytes, kind: str | None, text: str) -> None:
    assert (await fetched(page(body, kind))).text == text


async def test_a_page_names_its_encoding_itself() -> None:
    words = "Съешь же ещё этих мягких французских булок"
    html = f'<html><head><meta charset="windows-1251"><title>Да</title></head><body><p>{words}</p></body></html>'
    read = await fetched(page(html.encode("cp1251"), "text/html"))
    assert (read.title, words in read.text) == ("Да", True)


async def test_a_page_of_nearly_two_megabytes_is_read_and_its_text_cut() -> None:
    rows = "".join(
        f"<h2>Section {n}</h2><p>It has number {n} and <a href='/{n}'>a link</a>.</p>" for n in range(25_000)
    )
    body = f"<html><body><script>{'x' * 100_000}</script><main>{rows[:1_780_000]}</main></body></html>"
    read = await fetched(page(body))
    assert read.cut
    assert 90_000 < len(read.text.encode()) <= 100_000
    assert "## Section 99\n" in read.text


async def test_more_than_two_megabytes_are_not_read() -> None:
    """A server that announces much, and sends without an end, is left after what is taken."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10000000000\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b"words " * 1_000)
            await writer.drain()
        raise ConnectionError

    async with fetching_from({"/": endless}) as (one, fetcher):
        read = await fetcher.fetch(one.url("/"))
        assert (read.cut, len(read.text)) == (True, 100_000)
        await one.until_closed()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_bomb_is_ended_early(times: int) -> None:
    """The test packs 20 MB of zeros and spaces; decompressed, at most 2 MB of it are taken. Packed twice is refused."""
    packed = b"x" * 20_000_000
    for _ in range(times):
        packed = gzip.compress(packed, 1)
    if times == 2:
        assert await refused(page(packed, "text/plain", content_encoding="gzip, gzip")) == "not_answered"
    else:
        assert (await fetched(page(packed, "text/plain", content_encoding="gzip"))).cut


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"some words", mtime=0)),
        ("deflate", zlib.compress(b"some words")),
        ("deflate", zlib.compress(b"some words")[2:-4]),
    ],
)
async def test_compressed_bodies_are_read(encoding: str, packed: bytes) -> None:
    assert (await fetched(page(packed, "text/plain", content_encoding=encoding))).text == "some words"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip"])
async def test_bodies_in_another_form_than_asked_for_are_refused(encoding: str) -> None:
    assert await refused(page(b"no such form", "text/plain", content_encoding=encoding)) == "not_answered"


def a_pdf(words: str) -> bytes:
    """Returns a PDF of one page."""
    content = f"BT /F1 12 Tf 72 720 Td ({words}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(out),
    )


@pytest.mark.parametrize("kind", ["application/pdf", "application/octet-stream"])
async def test_a_pdf_is_read(kind: str) -> None:
    assert (await fetched(page(a_pdf("Words of a file"), kind))).text == "Words of a file"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"\x89PNG", "image/png", "unsupported_type"),
        (b"PK\x03\x04", "application/zip", "unsupported_type"),
        (b"\x00\x01\x02", "application/octet-stream", "unsupported_type"),
        (b"\x00\x01\x02", "text/\xffhtml", "unsupported_type"),
        (b"\x00\x01\x02", f"x/{'y' * 100}", "unsupported_type"),
        (b"a\x00b", "text/plain", "binary"),
        (b"%PDF-1.4 no file", "application/pdf", "unreadable"),
        (a_pdf(""), "application/pdf", "no_text"),
        (b"<html><body><script>draw()</script><div id=root></div></body></html>", "text/html", "no_text"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_reason(body: bytes, kind: str, code: str) -> None:
    assert await refused(page(body, kind)) == code


async def test_a_pdf_that_is_too_long_is_not_read() -> None:
    async with fetching_from({"/": page(b"", "application/pdf", content_length="10000000000")}) as (one, fetcher):
        with pytest.raises(WebFailure, match="2 MB"):
            await fetcher.fetch(one.url("/"))


async def test_an_error_of_a_site_is_told_with_its_page() -> None:
    read = await fetched(page("<p>This page has moved to another place.</p>", status=410))
    assert (read.status, read.text) == (410, "This page has moved to another place.")
    assert (await fetched(page(b"\x89PNG", "image/png", 404))).status == 404


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "javascript:1", "//example.com/", "example.com", "http://", "",
        "http://user@example.com/", "https://user:word@example.com/", "http://example.com:22/", "https://example.com:8443/",
        "http://[::1", "http://exa mple.com/", "http://\ud800/", f"http://example.com/{'x' * 2_000}",
    ],
)  # fmt: skip
async def test_addresses_of_other_kinds_are_refused(url: str) -> None:
    async with open_fetcher(resolver=Names(["127.0.0.1"])) as fetcher:
        with pytest.raises(WebFailure) as failure:
            await fetcher.fetch(url)
    assert failure.value.code == "invalid_url"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "10.0.0.1",
        "172.16.9.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1",
        "255.255.255.255", "168.63.129.16", "①②⑦.⓪.⓪.①", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2001:db8::1]", "[fc00::1]", "[fe80::1]",
        "[fec0::1]", "[ff02::1]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    ],
)  # fmt: skip
async def test_private_and_special_addresses_get_no_connection_in_any_spelling(host: str) -> None:
    async with site({"/": page("secret")}) as one, open_fetcher(ports={one.port}) as fetcher:
        with pytest.raises(WebFailure) as failure:
            await fetcher.fetch(one.url("/", host))
        assert failure.value.code in ("address_refused", "invalid_url", "not_resolved")
        assert not one.requests


async def test_a_name_that_leads_elsewhere_the_second_time_is_judged_by_the_address_that_is_connected_to() -> None:
    """The first answer is allowed, the second is not: each connection follows its own answer only."""
    names = Names(["127.0.0.1", "127.9.9.9"])
    addresses = OutsideAddresses("127.0.0.0/16")
    async with site({"/": page("words")}) as one, open_fetcher(addresses, {one.port}, names) as fetcher:
        assert (await fetcher.fetch(one.url("/", "rebinding.example"))).text == "words"
        with pytest.raises(WebFailure) as failure:
            await fetcher.fetch(one.url("/", "rebinding.example"))
        assert failure.value.code == "address_refused"
        assert names.asked == ["rebinding.example"] * 2  # once for each connection
        assert len(one.requests) == 1


@pytest.mark.parametrize("target", ["http://127.9.9.9:{port}/b", "http://[::1]:{port}/b", "http://169.254.169.254/b"])
async def test_a_redirect_to_another_address_is_checked(target: str) -> None:
    addresses = OutsideAddresses("127.0.0.0/16")
    async with site({}) as one, open_fetcher(addresses, {one.port, 80}) as fetcher:
        one.pages["/a"] = moved(target.format(port=one.port))
        with pytest.raises(WebFailure) as failure:
            await fetcher.fetch(one.url("/a"))
    assert failure.value.code == "address_refused"


async def test_redirects_are_followed_five_times() -> None:
    pages: dict[str, object] = {f"/{n}": moved(f"/{n + 1}", 301 + n % 3) for n in range(1, 8)}
    async with fetching_from(pages) as (one, fetcher):
        one.pages["/7"] = page("the end", "text/plain")
        assert (await fetcher.fetch(one.url("/2"))).url == one.url("/7")
        with pytest.raises(WebFailure) as failure:
            await fetcher.fetch(one.url("/1"))
        assert failure.value.code == "too_many_redirects"
        one.pages["/loop"] = moved("/loop")
        with pytest.raises(WebFailure, match="5 times"):
            await fetcher.fetch(one.url("/loop"))
        for wrong in ("ftp://x/", "http://u:p@127.0.0.1/", "http://127.0.0.1:1/", "http://[x"):
            one.pages["/wrong"] = moved(wrong)
            with pytest.raises(WebFailure) as failure:
                await fetcher.fetch(one.url("/wrong"))
            assert failure.value.code == "invalid_url"


@asynccontextmanager
async def tls_site(folder: Path) -> AsyncIterator[int]:
    """Listens with a certificate that no known authority has signed."""
    files = make_certificates(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.server, files.server_key)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_other_failures_have_names(free_port: int, tmp_path: Path) -> None:
    async with open_fetcher(LOOPBACK, {free_port, 80}) as fetcher:
        for url, code in ((f"http://127.0.0.1:{free_port}/", "not_connected"), ("http://no.invalid/", "not_resolved")):
            with pytest.raises(WebFailure) as failure:
                await fetcher.fetch(url)
            assert failure.value.code == code
    async with tls_site(tmp_path) as port, open_fetcher(LOOPBACK, {port}) as fetcher:
        with pytest.raises(WebFailure, match="certificate"):
            await fetcher.fetch(f"https://127.0.0.1:{port}/")
    for answer in (b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000):
        assert await refused(answer) == "not_answered"


# --- time -------------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\n"


async def test_a_drip_is_ended_by_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TOTAL", 0.3)
    async with fetching_from({"/": dripping(HEAD, 0.01)}) as (one, fetcher):
        with pytest.raises(WebFailure) as failure:
            await fetcher.fetch(one.url("/"))
        assert failure.value.code == "timeout"
        await one.until_closed()


async def test_a_cancel_closes_the_connection() -> None:
    async with fetching_from({"/": dripping(HEAD, 0.01)}) as (one, fetcher):
        job = asyncio.create_task(fetcher.fetch(one.url("/")))
        async with asyncio.timeout(limit(20)):
            while not one.requests:
                await asyncio.sleep(0.01)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        assert job.cancelled()
        await one.until_closed()
