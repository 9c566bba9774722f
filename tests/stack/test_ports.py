"""Ports that the local stack chooses for its processes."""

import socket

from server.stack.ports import CHOSEN_FROM, HOST, free_port


def test_a_chosen_port_is_none_that_the_system_gives_to_whoever_asks() -> None:
    with socket.socket() as anybody:
        anybody.bind((HOST, 0))
        given = anybody.getsockname()[1]

    assert given not in CHOSEN_FROM
    assert free_port() in CHOSEN_FROM


def test_no_port_is_chosen_twice() -> None:
    chosen = [free_port() for _ in range(100)]

    assert len(set(chosen)) == len(chosen)


def test_preferred_port_is_chosen_where_nobody_listens_on_it() -> None:
    with socket.create_server((HOST, 0)) as server:
        preferred = server.getsockname()[1]
        assert free_port(preferred) != preferred

    assert free_port(preferred) == preferred
