"""Which messages for channels may still be sent: none after the channel's CLOSE.

paramiko makes a channel's message under the channel's lock and sends it after, so a thread that ends the input can be
overtaken by the one that answers the server's CLOSE. Servers hang up on what follows a CLOSE: dropbear with "EOF for
unknown channel", OpenSSH with "packet referred to nonexistent channel".
"""

from __future__ import annotations

import struct

# RFC 4250, section 4.1.2: WINDOW_ADJUST, DATA, EXTENDED_DATA, EOF, CLOSE, REQUEST.
_OF_A_CHANNEL = range(93, 99)
_CLOSE = 97
_OPEN_CONFIRMATION = 91


class ChannelOrder:
    """Of one connection. Whoever sends channels' messages asks and sends under one lock, as paramiko does."""

    def __init__(self) -> None:
        self._closed: set[int] = set()  # numbers that the server gave, to which a CLOSE was sent

    def admits(self, message: bytes) -> bool:
        """Whether to send a message, which begins with its kind; a CLOSE that is admitted is the channel's last."""
        if len(message) < 5 or message[0] not in _OF_A_CHANNEL:
            return True
        (channel,) = struct.unpack_from(">I", message, 1)
        if channel in self._closed:
            return False
        if message[0] == _CLOSE:
            self._closed.add(channel)
        return True

    def came(self, kind: int, content: bytes) -> None:
        """A message came from the server: a number is given anew only after the CLOSE of the channel that had it."""
        if kind == _OPEN_CONFIRMATION and len(content) >= 8:
            self._closed.discard(struct.unpack_from(">I", content, 4)[0])
