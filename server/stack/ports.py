"""Ports of this machine: choosing those of the stack's processes, and asking who answers there."""

import http.client
import random
import socket

from server.stack.errors import StackError

HOST = "127.0.0.1"
# Below what Linux (32768 to 60999) and macOS (49152 to 65535) hand out to whoever asks for any port: between choosing
# one of those and listening there, another process's connection or server may be given it.
CHOSEN_FROM = range(20_000, 32_768)
TRIES = 200
# What this process has chosen already: it may not be listened on yet.
_chosen: set[int] = set()


def free_port(preferred: int = 0) -> int:
    """A port that nobody listens on now: the preferred one, if it is one of them. Raises StackError where none is."""
    for port in (*([preferred] if preferred else []), *random.sample(CHOSEN_FROM, TRIES)):
        if port not in _chosen and _is_free(port):
            _chosen.add(port)
            return port
    raise StackError(f"Cannot find a free port of {HOST} from {CHOSEN_FROM.start} to {CHOSEN_FROM.stop - 1}.")


def _is_free(port: int) -> bool:
    try:
        check_is_free(port)
    except OSError:
        return False
    return True


def check_is_free(port: int) -> None:
    """Raises OSError where a server could not listen on it."""
    with socket.socket() as probe:
        # As a server binds it: connections that linger from the last run do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))


def accepts(listen: str) -> bool:
    """Whether somebody accepts connections at host:port."""
    host, _, port = listen.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def answers(listen: str, path: str) -> bool:
    """Whether a GET of that path at host:port is answered with 200."""
    connection = http.client.HTTPConnection(listen, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
