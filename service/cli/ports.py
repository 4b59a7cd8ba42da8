"""Which ports of this machine are free."""

import socket

import click


def is_taken(port: int) -> bool:
    """Return whether somebody listens on a port, on the loopback or on every address."""
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - tried, not served
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return True
    return False


def check_free(port: int, use: str) -> None:
    """Refuse a port that somebody listens on, and say which."""
    if is_taken(port):
        raise click.ClickException(f"port {port} ({use}) is taken; free it or choose another")


def find_free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_free_run(length: int) -> int:
    """Return the first of so many ports in a row that nobody listens on."""
    while True:
        first = find_free_port()
        run = range(first, first + length)
        if run[-1] <= 65_000 and not any(map(is_taken, run)):
            return first
