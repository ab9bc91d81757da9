"""Options of the platform, read from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path


class InvalidOption(Exception):
    """An option has a value that cannot be used."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of graphs and runs. Times are in seconds, sizes in bytes of JSON."""

    nodes: int = 200
    links: int = 1_000
    run_seconds: float = 300.0
    node_output: int = 262_144
    run_output: int = 1_048_576
    """All outputs of a run together."""
    runs_at_once: int = 20
    runs_at_once_of_user: int = 5
    runs_waiting: int = 500
    """Runs of all users that have not ended."""
    runs_of_user: int = 100
    """Runs of one user that have not ended."""
    runs_kept_of_user: int = 1_000
    """Runs of one user that are kept when they have ended."""
    schedules_of_user: int = 100
    graphs_of_user: int = 2_000


@dataclass(frozen=True, slots=True)
class PlatformOptions:
    """Where the platform keeps its data, what its blocks may reach, and its limits."""

    data: Path | None = None
    """The folder of the database. Without it, everything is in memory and is lost at the end."""
    api_key: str | None = None
    private_networks: str = ""
    """Networks that the block HTTP Request may reach although they are not public."""
    model_url: str | None = None
    """The base URL of an OpenAI-compatible endpoint. Without it, AI Text Generator answers by a script."""
    model_name: str = "gpt-5-mini"
    model_key: str | None = None
    limits: Limits = Limits()


def read_platform_options(environment: Mapping[str, str] = os.environ) -> PlatformOptions:
    """Reads the options. Raises InvalidOption."""
    env = {name: value for name, value in environment.items() if value}
    usual = PlatformOptions()
    networks = env.get("PLATFORM_PRIVATE_NETWORKS", "")
    try:
        for network in networks.split(","):
            if network.strip():
                ip_network(network.strip())
        limits = Limits(
            nodes=int(env.get("PLATFORM_MAX_NODES", usual.limits.nodes)),
            run_seconds=float(env.get("PLATFORM_RUN_SECONDS", usual.limits.run_seconds)),
        )
    except ValueError as error:
        raise InvalidOption(str(error)) from None
    if limits.nodes < 1 or not 0 < limits.run_seconds <= 86_400:
        raise InvalidOption("PLATFORM_MAX_NODES and PLATFORM_RUN_SECONDS must be above 0, and a run at most a day")
    return PlatformOptions(
        data=Path(env["PLATFORM_DATA"]) if "PLATFORM_DATA" in env else None,
        api_key=env.get("PLATFORM_API_KEY"),
        private_networks=networks,
        model_url=env.get("PLATFORM_MODEL_URL"),
        model_name=env.get("PLATFORM_MODEL", usual.model_name),
        model_key=env.get("PLATFORM_MODEL_KEY"),
        limits=limits,
    )
