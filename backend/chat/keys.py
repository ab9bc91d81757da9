"""Every Redis key, with its TTL and what refreshes it. No other module builds a key.

    chat:stream:{session}:task   stream    a task's chunks              STREAM_TTL, refreshed by every append
    chat:lock:{session}          string    "executor task"              SESSION_LOCK_TTL, refreshed by the holder
    chat:executor:<id>           string    an executor's heartbeat      1.5 s, refreshed every 0.5 s
    chat:stop:{session}:<digest> string    a stop that came before its message   60 s, never refreshed
    chat:ready:<id>              string    written by readiness checks  60 s, refreshed by each
    chat:born                    string    time Redis was first seen    BORN_TTL, refreshed every 5 s
    chat:census                  string    executor that takes the census   CENSUS_TTL, refreshed by it
    chat:turns                   stream    the embedded turn queue      none: it holds the queue
    chat:turns:dead              stream    turns the queue gave up on   none: trimmed to its newest entries
    chat:completions             stream    outcomes to be applied       none: trimmed by completions_trim.lua
    chat:completions:dead        stream    entries that were refused    none: trimmed to its newest entries
    chat:cancel                  channel   cancel requests (embedded)   none: it is a channel
    chat:webhook:<digest>        string    a signed message's operation 11 minutes, as long as it could be sent again
    chat:hub                     channel   nothing: hubs test it        none: it is a channel
    chat:feed:user:<digest>      channel   hints for a user's pages     none: it is a channel
    chat:feed:{session}          channel   hints for a session's pages  none: it is a channel
    chat:assigned                channel   sessions given to a user     none: it is a channel

`{session}` is a hash tag of Redis Cluster, so all keys of a session live on one node. In a cluster, a key that is used
together with another has that one's name as a hash tag at its end (`backend.redis_cluster.beside`): the dead letters,
and the heartbeats, which are judged together with `chat:born`.
"""

from __future__ import annotations

from hashlib import sha256

from backend.ids import ExecutorId, SessionId, TaskId, UserId

HEARTBEAT_EVERY = 0.5
"""Seconds between two heartbeats."""
HEARTBEAT_TTL = 1.5
"""Seconds."""
READY_TTL = 60
"""Seconds."""
BORN = "chat:born"
BORN_TTL = 7 * 24 * 3600
"""Seconds."""
CENSUS = "chat:census"
CENSUS_TTL = 20
"""Seconds: a little more than the time between two censuses."""
TURNS = "chat:turns"
DEAD_TURNS = "chat:turns:dead"
CANCEL_CHANNEL = "chat:cancel"
HUB_CHANNEL = "chat:hub"
WEBHOOK_TTL = 660
"""Seconds. A signature is valid for five minutes, and its sender's clock may be five minutes ahead."""
ASSIGNED_CHANNEL = "chat:assigned"
COMPLETIONS = "chat:completions"
DEAD_COMPLETIONS = "chat:completions:dead"


def stream_key(session_id: SessionId, task_id: TaskId) -> str:
    """Returns the key of a task's stream. The pub/sub channel that announces its new entries has the same name."""
    return f"chat:stream:{{{session_id}}}:{task_id}"


def lock_key(session_id: SessionId) -> str:
    return f"chat:lock:{{{session_id}}}"


def stop_key(session_id: SessionId, caller: str, message_id: str) -> str:
    """Returns the key of a caller's stop for a message. It has a digest, as the names of feeds have."""
    return f"chat:stop:{{{session_id}}}:{sha256(f'{caller} {message_id}'.encode()).hexdigest()[:32]}"


def ready_key(process: ExecutorId) -> str:
    """Returns the key that a process writes to learn whether Redis takes writes."""
    return f"chat:ready:{process}"


def executor_key(executor_id: ExecutorId) -> str:
    return f"chat:executor:{executor_id}"


def user_feed(user_id: UserId) -> str:
    """Returns the channel of a user's hints. It has a digest, so that no text of users is part of a name in Redis."""
    return f"chat:feed:user:{sha256(user_id.encode()).hexdigest()[:32]}"


def session_feed(session_id: SessionId) -> str:
    """Returns the channel of a session's hints."""
    return f"chat:feed:{{{session_id}}}"


def webhook_key(signature: str) -> str:
    """Returns the key of a signed message. It has a digest, so that Redis holds no signature."""
    return f"chat:webhook:{sha256(signature.encode()).hexdigest()}"
