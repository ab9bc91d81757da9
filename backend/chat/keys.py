"""Every Redis key, with who gives it a TTL. Nothing else builds a key.

    chat:stream:{session}:task   stream    a task's chunks            STREAM_TTL, refreshed by every append
    chat:lock:{session}          string    "executor task"            SESSION_LOCK_TTL, refreshed by the holder
    chat:executor:<id>           string    an executor's heartbeat    1.5 s, refreshed every 0.5 s
    chat:born                    string    when Redis was first seen  BORN_TTL, refreshed with the heartbeats
    chat:turns                   stream    the embedded turn queue    none: it is the queue
    chat:turns:dead              stream    turns nobody could read    none: trimmed to its newest entries
    chat:completions             stream    outcomes on their way      none: trimmed below what every group has finished
    chat:completions:dead        stream    entries nobody could apply none: trimmed to its newest entries
    chat:cancel                  channel   cancel wishes (embedded)   a channel is no key
    chat:feed:user:<digest>      channel   hints for a user's pages
    chat:feed:{session}          channel   hints for a session's pages

`{session}` is the hash tag of Redis Cluster: all keys of a session live on one node.
"""

from __future__ import annotations

from hashlib import sha256

from backend.ids import ExecutorId, SessionId, TaskId, UserId

HEARTBEAT_EVERY = 0.5
HEARTBEAT_TTL = 1.5
BORN = "chat:born"
BORN_TTL = 7 * 24 * 3600
TURNS = "chat:turns"
DEAD_TURNS = "chat:turns:dead"
CANCEL_CHANNEL = "chat:cancel"
COMPLETIONS = "chat:completions"
DEAD_COMPLETIONS = "chat:completions:dead"


def stream_key(session_id: SessionId, task_id: TaskId) -> str:
    """Also the pub/sub channel on which the stream's new entries are announced."""
    return f"chat:stream:{{{session_id}}}:{task_id}"


def lock_key(session_id: SessionId) -> str:
    return f"chat:lock:{{{session_id}}}"


def executor_key(executor_id: ExecutorId) -> str:
    return f"chat:executor:{executor_id}"


def user_feed(user_id: UserId) -> str:
    """A channel. No text of a user's is part of a name in Redis."""
    return f"chat:feed:user:{sha256(user_id.encode()).hexdigest()[:32]}"


def session_feed(session_id: SessionId) -> str:
    """A channel."""
    return f"chat:feed:{{{session_id}}}"
