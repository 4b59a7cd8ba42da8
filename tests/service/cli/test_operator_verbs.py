"""The operator's verbs as processes, on the database of a stopped `amana up`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from service.cli.embedded import servers
from service.cli.postgres import is_ready
from service.cli.supervisor import find_amana
from service.cli.var import Var, make_secret_key

UNSET = ("DATABASE_URL", "DATABASE_ADMIN_URL", "REDIS_URL", "AMANA_SECRET_KEY")
ENVIRON = {name: value for name, value in os.environ.items() if name not in UNSET}


def amana(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_amana(), *arguments, "--data-dir", str(folder)],
        capture_output=True,
        text=True,
        env=ENVIRON,
        timeout=60,
        check=False,
    )


@pytest.mark.timeout(180)
def test_a_stopped_deployment_is_worked_on_and_left_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    with servers(folder):
        make_secret_key(Var(folder))
        assert amana(folder, "migrate").returncode == 0
    created = amana(
        folder, "developer", "create", "--email", "d@e.example", "--company", "E", "--json"
    )
    assert created.returncode == 0, created.stderr
    assert json.loads(created.stdout)["apiKey"].startswith("sk_sandbox_")
    checked = amana(folder, "check", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["ok"]) == (0, True)
    assert checked.stderr == ""
    assert not is_ready(folder / "postgres")
