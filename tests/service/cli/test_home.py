"""Where a command works: DATABASE_URL's database, else the one in the data folder."""

from pathlib import Path

import asyncpg
import click
import pytest

from service.cli.embedded import servers
from service.cli.home import settings_at
from service.cli.postgres import is_ready
from service.cli.var import InUse, Var, locked, make_secret_key
from service.settings import Settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DATABASE_ADMIN_URL", "REDIS_URL", "AMANA_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was used and is stopped."""
    folder = tmp_path_factory.mktemp("home") / "var"
    with servers(folder):
        make_secret_key(Var(folder))
    return folder


async def user_of(settings: Settings) -> object:
    connection = await asyncpg.connect(settings.admin_url)
    try:
        return await connection.fetchval("SELECT current_user")
    finally:
        await connection.close()


async def test_a_stopped_database_is_started_and_stopped_again(folder: Path) -> None:
    with settings_at(folder) as settings:
        assert await user_of(settings) == "amana_owner"
        assert settings.database_url is not None
        assert settings.database_url.startswith("postgresql://amana_app@/amana?host=/")
        assert settings.secret_keys
        assert settings.storage_url == f"file://{folder}/files"
    assert not is_ready(folder / "postgres")


async def test_a_running_database_is_used_and_left_running(folder: Path) -> None:
    with servers(folder) as urls:
        with settings_at(folder) as settings:
            assert await user_of(settings) == "amana_owner"
            assert settings.redis_url == urls.redis
        assert is_ready(folder / "postgres")


def test_a_folder_without_a_database_is_refused_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(click.ClickException, match=r"there is no database in .*: run `amana up`"),
        settings_at(tmp_path / "var"),
    ):
        pass
    assert not (tmp_path / "var").exists()


def test_a_given_database_leaves_the_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://amana_app@db/amana")
    with settings_at(tmp_path / "var") as settings:
        assert settings.database_url == "postgresql://amana_app@db/amana"
        assert settings.database_admin_url is None
        assert settings.secret_keys == ()
    assert not (tmp_path / "var").exists()


def test_one_command_waits_for_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.home.ATTACH_WITHIN_SECONDS", 0.2)
    with (
        locked(Var(folder), "a command"),
        pytest.raises(InUse, match="in use by a command"),
        settings_at(folder),
    ):
        pass


def test_the_secret_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    var = Var.at(tmp_path)
    make_secret_key(var)
    first = var.secret_key.read_text()
    make_secret_key(var)
    assert var.secret_key.read_text() == first
    assert var.secret_key.stat().st_mode & 0o777 == 0o600
