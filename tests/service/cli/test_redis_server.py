"""Which Redis is taken: this machine's own when it is new enough, else the wheel's."""

import os
from pathlib import Path

import pytest

from service.cli.redis_server import find_server, read_version


def install(folder: Path, name: str, version: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_on_the_path_is_taken_when_new_enough(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = install(tmp_path, name, "6.2.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert find_server() == str(program)


def test_an_older_server_is_passed_over_for_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "redis-server", "6.0.16")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    found = find_server()
    assert not found.startswith(str(tmp_path))
    assert read_version(found) >= (6, 2)
    assert os.access(found, os.X_OK)
