"""Finds RabbitMQ for the tests, or installs it. `python -m tests.servers.rabbitmq_install` fails if it cannot.

It tries, in this order: RABBITMQ_URL, an installed rabbitmq-server, Debian's package (as root), a docker engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers.debian import can_install, install
from tests.speed import limit

IMAGE = "rabbitmq:4"
HINT = "The tests need RabbitMQ: sudo apt-get install -y rabbitmq-server (or set RABBITMQ_URL, or start docker)"
_PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/sbin", "/opt/rabbitmq/sbin", "/opt/homebrew/sbin")


def find_scripts() -> Path | None:
    """Returns the folder with an installed server's own scripts, not with the wrappers that change the user."""
    for place in _PLACES:
        if (Path(place) / "rabbitmq-server").is_file():
            return Path(place)
    found = shutil.which("rabbitmq-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Path(found).resolve().parent if found else None


def has_docker_engine() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(("docker", "info"), capture_output=True, check=False, timeout=limit(20)).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def scripts_or_install() -> Path | None:
    """Returns the folder with the scripts. Installs Debian's package first if necessary. Returns None if there is no
    server and it cannot be installed."""
    if (found := find_scripts()) is None and can_install():
        install("rabbitmq-server")
        found = find_scripts()
    return found


def main() -> None:
    if os.environ.get("RABBITMQ_URL") or scripts_or_install() is not None or has_docker_engine():
        return
    sys.exit(HINT)


if __name__ == "__main__":
    main()
