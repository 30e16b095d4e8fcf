"""A TCP listener, one thread a connection, that can be closed and reopened."""

import select
import socket
import struct
import threading
import time


class Gone(Exception):
    """The connection has ended, by the other side's will or by a fault."""


class Listener:
    def __init__(self, address, port, serve):
        self.address, self.port, self.serve = address, port, serve
        self.lock = threading.Lock()
        self.socket = None
        self.connections = set()

    def open(self):
        with self.lock:
            if self.socket is not None:
                return
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.address, self.port))
            sock.listen(256)
            self.port = sock.getsockname()[1]   # the same one when reopened
            self.socket = sock
        threading.Thread(target=self._accept, args=(sock,),
                         daemon=True).start()

    def close(self, drop=False):
        """From now on connections are refused; `drop` ends the open ones."""
        with self.lock:
            sock, self.socket = self.socket, None
            victims = list(self.connections) if drop else []
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)     # wakes accept()
            sock.close()
        for conn in victims:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, sock):
        while True:
            try:
                conn, peer = sock.accept()
            except OSError:
                return
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._run, args=(conn, peer),
                             daemon=True).start()

    def _run(self, conn, peer):
        # A second handle on the connection: TLS takes the first one over.
        handle = conn.dup()
        with self.lock:
            self.connections.add(handle)
        try:
            self.serve(conn, peer)
        except (Gone, OSError):
            pass
        finally:
            with self.lock:
                self.connections.discard(handle)
            conn.close()
            try:
                # FIN now, whoever else may still hold the socket; with
                # reset() the last close sends RST instead
                if not _lingers(handle):
                    handle.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            handle.close()


def _lingers(sock):
    return struct.unpack("ii", sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, 8))[0]


def reset(sock):
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                    struct.pack("ii", 1, 0))
    sock.close()


def wait_cleared(sock, fault, seconds=None):
    """Wait until the fault is cleared, the time is over, or the peer leaves.

    True if the peer is still there.
    """
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    end = None if seconds is None else time.monotonic() + seconds
    while not fault.cleared.is_set():
        left = 0.05
        if end is not None:
            left = min(left, end - time.monotonic())
            if left <= 0:
                return True
        if poll.poll(left * 1000):
            return False
    return True
