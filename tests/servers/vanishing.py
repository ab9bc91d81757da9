"""Simulates a peer whose host has vanished: packets to it are neither acknowledged nor refused."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction of classic BPF: return 0


def vanish(connection: socket.socket) -> None:
    """Makes that TCP socket drop all incoming packets. Closing it would still send a FIN, so keep it open while the
    other side must not notice."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    length_and_address = struct.pack("HP", 1, ctypes.addressof(program))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, length_and_address)
