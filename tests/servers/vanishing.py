"""A peer whose host is gone: what is sent to it is neither taken nor refused."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction of classic BPF: return 0


def vanish(connection: socket.socket) -> None:
    """From now on that TCP socket hears nothing and acknowledges nothing. Closing it would still send a FIN: keep it
    open for as long as the other side is to be left in the dark."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    length_and_address = struct.pack("HP", 1, ctypes.addressof(program))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, length_and_address)
