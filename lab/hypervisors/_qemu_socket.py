"""Connections to the sockets in a machine's directory, however long its path is."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def connect(directory: Path, name: str) -> socket.socket:
    """A connection to the UNIX socket `name` of that directory. Raises `OSError`."""
    # An address of a UNIX socket has 107 bytes (unix(7)) and a machine's path may have more.
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"/proc/self/fd/{opened}/{name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(opened)
    return connection
