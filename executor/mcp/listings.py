"""Lists of tools as servers really send them. The SDK refuses a whole list for one member of one tool."""

from __future__ import annotations

from typing import Any

from executor.mcp.schemas import ORIGINAL

_TEXTS = ("title", "description")
_TASK_SUPPORT = ("forbidden", "optional", "required")


def repair_listing(result: dict[str, Any]) -> None:
    """Repairs, in place, the result of `tools/list`. Does nothing to other results."""
    tools = result.get("tools")
    if isinstance(tools, list) and "content" not in result:
        result["tools"] = [_tidied(tool) for tool in tools if _is_tool(tool)]


def _is_tool(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str) and tool["name"] != ""


def _tidied(tool: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in tool.items() if key not in ("outputSchema", "icons")}  # neither is used
    for key in _TEXTS:
        if key in kept and not isinstance(kept[key], str):
            del kept[key]
    hints, execution = kept.pop("annotations", None), kept.pop("execution", None)
    if isinstance(hints, dict):
        flags = {key: value for key, value in hints.items() if key.endswith("Hint") and isinstance(value, bool)}
        titles = {"title": hints["title"]} if isinstance(hints.get("title"), str) else {}
        kept["annotations"] = {**flags, **titles}
    if isinstance(execution, dict) and execution.get("taskSupport") in _TASK_SUPPORT:
        kept["execution"] = {"taskSupport": execution["taskSupport"]}
    if not isinstance(kept.get("_meta", {}), dict):
        del kept["_meta"]
    if not _is_plain(kept.get("inputSchema")):
        kept["inputSchema"] = {"type": "object", ORIGINAL: kept.get("inputSchema")}
    return kept


def _is_plain(schema: Any) -> bool:
    """Returns True if the SDK takes the schema, in every version of the protocol."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    required = schema.get("required", [])
    return (
        isinstance(schema.get("properties", {}), dict)
        and all(isinstance(value, dict) for value in schema.get("properties", {}).values())
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
        and isinstance(schema.get("$schema", ""), str)
    )
