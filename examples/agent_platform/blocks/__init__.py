"""The blocks of the platform."""

from __future__ import annotations

from examples.agent_platform.blocks.arithmetic import ARITHMETIC
from examples.agent_platform.blocks.block import Block
from examples.agent_platform.blocks.ends import AGENT_INPUT, AGENT_OUTPUT
from examples.agent_platform.blocks.flow import CONDITION, DELAY, NOW
from examples.agent_platform.blocks.keeping import STORE_GET, STORE_SET
from examples.agent_platform.blocks.services import AI_TEXT, HTTP_REQUEST
from examples.agent_platform.blocks.simulated import (
    READ_WEB_PAGE,
    RUN_AGENT,
    SEND_EMAIL,
    SEND_MESSAGE,
    WEB_SEARCH,
    WRITE_ROW,
)
from examples.agent_platform.blocks.texts import READ_FILE, TEXT_TEMPLATE, WRITE_FILE
from examples.agent_platform.blocks.triggers import EVENT_TRIGGER, MANUAL_TRIGGER, SCHEDULE_TRIGGER, WEBHOOK_TRIGGER
from examples.agent_platform.blocks.values import BUILD_LIST, BUILD_OBJECT, GET_ITEM, GET_MEMBER, JSON_PATH

_ALL = (
    AGENT_INPUT, AGENT_OUTPUT, MANUAL_TRIGGER, SCHEDULE_TRIGGER, WEBHOOK_TRIGGER, EVENT_TRIGGER, ARITHMETIC,
    TEXT_TEMPLATE, JSON_PATH, BUILD_LIST, GET_ITEM, BUILD_OBJECT, GET_MEMBER, CONDITION, NOW, DELAY, HTTP_REQUEST,
    AI_TEXT, STORE_GET, STORE_SET, WRITE_FILE, READ_FILE, SEND_EMAIL, SEND_MESSAGE, WEB_SEARCH, READ_WEB_PAGE,
    WRITE_ROW, RUN_AGENT,
)  # fmt: skip
BLOCKS: dict[str, Block] = {block.id: block for block in _ALL}
"""All blocks by their ids, in the order in which they are listed."""
