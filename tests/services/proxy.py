"""A TCP proxy between a node and a server, that can stop passing anything on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

_CHUNK = 65536


class Proxy:
    """Passes connections on to ``port`` of this machine, from its own :attr:`port`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: set[socket.socket] = set()
        self._left: int | None = None
        self._counting = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Nothing passes, and nobody is told: connections look alive."""
        self._flowing.clear()

    def thaw(self) -> None:
        """What was held back passes, in order."""
        self._flowing.set()

    def strand(self) -> None:
        """Nothing passes any more on the connections there are, which look alive; new ones work."""
        stranded, self._flowing = self._flowing, threading.Event()
        self._flowing.set()
        stranded.clear()

    def cut(self) -> None:
        """Close every connection; new ones are passed on."""
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut_after(self, size: int) -> None:
        """Cut once, when ``size`` bytes more have passed to the server, which gets no more."""
        self._left = size

    def close(self) -> None:
        """Refuse new connections, close those there are."""
        self._listener.close()
        self.thaw()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets |= {near, far}
            flowing = self._flowing
            for source, sink, admit in ((near, far, self._admit), (far, near, _all)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, admit, flowing), daemon=True
                ).start()

    def _admit(self, data: bytes) -> bytes:
        """What of it may pass to the server.

        A byte too much would be the end of a command, whose answer may be there before the cut.
        """
        with self._counting:
            if self._left is None:
                return data
            admitted = data[: self._left]
            self._left -= len(admitted)
            if len(admitted) < len(data):
                self._left = None
            return admitted

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        admit: Callable[[bytes], bytes],
        flowing: threading.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                flowing.wait()
                admitted = admit(data)
                sink.sendall(admitted)
                if len(admitted) < len(data):
                    self.cut()
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            self._sockets.discard(one)


def _all(data: bytes) -> bytes:
    return data
