"""Pages of a querier's state: version, routes, settings without secrets, overrides of tenants; for admins alone."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from pipeline.serve import status_pages
from tests.doors import new_token
from tests.pipeline.serve.api import World, settings_of, with_api
from topics.settings import DoorSettings, LimitSettings, Settings, StoreSettings

SECRET = "planted-4711"


def asked(settings: Settings, *paths: str, method: str = "GET", **headers: str) -> list[httpx.Response]:
    async def test(client: httpx.AsyncClient, world: World) -> list[httpx.Response]:
        return [await client.request(method, path, headers=headers) for path in paths]

    return with_api(settings, lambda world: None, test)


def with_overrides(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "overrides.toml"
    path.write_text(text)
    settings = settings_of(tmp_path, multitenancy=True, store=StoreSettings(secret_key=SecretStr(SECRET)))
    return settings.model_copy(update={"limits": LimitSettings(overrides_path=str(path))})


def test_every_page_is_text_that_a_person_reads(tmp_path: Path) -> None:
    whole, version, services, endpoints = asked(
        settings_of(tmp_path), "/status", "/status/version", "/status/services", "/status/endpoints"
    )

    assert {one.headers["content-type"] for one in (whole, version)} == {"text/plain; charset=utf-8"}
    assert version.text.split()[:2] == ["version", "3.0.0+spanstream"]
    assert services.text.splitlines()[1].split() == ["querier", "Running"]
    assert any(line.startswith("/api/search ") and " get " in line for line in endpoints.text.splitlines())
    for part in (version, services, endpoints):
        assert part.text in whole.text


def test_settings_come_as_yaml_with_secrets_hidden(tmp_path: Path) -> None:
    settings = with_overrides(tmp_path, "")

    all_, diff, defaults = asked(settings, "/status/config", "/status/config?mode=diff", "/status/config?mode=defaults")

    assert SECRET not in all_.text + diff.text + defaults.text
    assert '  secret_key: "(hidden)"\n' in diff.text
    assert "querier:\n" in diff.text
    assert f'  overrides_path: "{settings.limits.overrides_path}"\n' in diff.text
    assert "  partitions: 2\n" in all_.text
    assert "  partitions: 8\n" in defaults.text
    assert "  niceness:" not in diff.text


def test_limits_of_tenants_are_told(tmp_path: Path) -> None:
    settings = with_overrides(tmp_path, '[tenants.shop]\nseries_max = 5\n[tenants."a\'b"]\nqueries_max = 1\n')

    yaml, listed, own, other = asked(
        settings, "/status/runtime_config", "/status/overrides", "/status/overrides/shop", "/status/overrides/none"
    )

    assert yaml.text == 'overrides:\n  "a\'b":\n    queries_max: 1\n  shop:\n    series_max: 5\n'
    assert [one["name"] for one in listed.json()["tenants"]] == ["a'b", "shop"]
    assert own.json()["runtime_overrides"] == {"series_max": 5}
    assert own.json()["using_default_or_wildcard_runtime_overrides"] is False
    assert other.json()["runtime_overrides"] is None
    assert "T" in other.json()["now"]


@pytest.mark.parametrize("path", ["/status/config", "/status/runtime_config"])
def test_a_mode_that_is_none_and_other_methods_are_refused(tmp_path: Path, path: str) -> None:
    (wrong,) = asked(settings_of(tmp_path / "1"), f"{path}?mode=all")
    (posted,) = asked(settings_of(tmp_path / "2"), path, method="POST")

    assert (wrong.status_code, wrong.text[:29]) == (400, "invalid mode: 'all' is none o")
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")


def test_only_who_may_see_all_tenants_sees_them(tmp_path: Path) -> None:
    tokens = {
        "one": new_token(tmp_path / "tokens.json", "read", "admin", tenants=("shop",)),
        "reader": new_token(tmp_path / "tokens.json", "read"),
        "admin": new_token(tmp_path / "tokens.json", "admin"),
    }
    doors = DoorSettings(tokens_path=str(tmp_path / "tokens.json"), peer_token=SecretStr(SECRET))
    settings = with_overrides(tmp_path, "").model_copy(update={"doors": doors})
    paths = (*status_pages.PAGES, "/status/overrides/shop")

    found = {
        who: {one.status_code for one in asked(settings, *paths, authorization=f"Bearer {token}")}
        for who, token in tokens.items()
    }

    assert found == {"one": {403}, "reader": {403}, "admin": {200}}
    assert SECRET not in asked(settings, "/status", authorization=f"Bearer {tokens['admin']}")[0].text
