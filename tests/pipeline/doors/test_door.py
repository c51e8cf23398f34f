"""Who may do what: tokens, scopes, tenants, peers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.doors import tokens
from pipeline.doors.door import Caller, Door, Need
from pipeline.doors.token_file import add_token, read_tokens, revoke_token
from pipeline.doors.watched import WatchedFile
from tests.doors import PEER_TOKEN, locked, new_token
from topics.errors import ForbiddenError, NotFoundError, SettingsError, UnauthenticatedError, UnknownTenantError
from topics.settings import DoorSettings, ReceiverSettings, Settings


def door_at(folder: Path, *, multitenancy: bool = True) -> Door:
    receiver = ReceiverSettings(multitenancy=multitenancy)
    return Door(Settings(doors=locked(folder, tls=False), receiver=receiver))


def headers(token: str, tenant: str = "") -> dict[str, str]:
    named = {"x-scope-orgid": tenant} if tenant else {}
    return {"authorization": f"Bearer {token}"} | named


def test_without_tokens_everybody_may_do_everything_for_the_tenant_named() -> None:
    door = Door(Settings(receiver=ReceiverSettings(multitenancy=True)))

    assert door.caller({"x-scope-orgid": "b|a"}, Need.READ) == Caller(("a", "b"), everything=True)
    assert door.caller({"x-scope-orgid": "a"}, Need.WRITE).tenant == "a"
    assert door.caller({}, Need.PEER).everything
    with pytest.raises(UnknownTenantError):
        door.caller({"x-scope-orgid": "a|b"}, Need.WRITE)


@pytest.mark.parametrize("need", [Need.WRITE, Need.READ, Need.ADMIN, Need.PEER])
@pytest.mark.parametrize("shown", ["", "Bearer ", "Bearer ss_", "Basic !", "Bearer \x00", "Bearer ä", "Digest x"])
def test_what_is_no_token_opens_nothing(tmp_path: Path, need: Need, shown: str) -> None:
    new_token(tmp_path / "tokens.json", "read", "write", "admin")

    with pytest.raises(UnauthenticatedError):
        door_at(tmp_path).caller({"authorization": shown, "x-scope-orgid": "a"}, need)


def test_a_token_with_one_wrong_letter_opens_nothing(tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens.json", "read")
    door = door_at(tmp_path)
    door.caller(headers(token, "a"), Need.READ)

    for at in (5, 20, len(token) - 1):
        changed = token[:at] + ("0" if token[at] != "0" else "1") + token[at + 1 :]
        with pytest.raises(UnauthenticatedError):
            door.caller(headers(changed, "a"), Need.READ)


def test_a_scope_opens_what_it_is_for_and_nothing_else(tmp_path: Path) -> None:
    by_need = {
        Need.WRITE: new_token(tmp_path / "tokens.json", "write"),
        Need.READ: new_token(tmp_path / "tokens.json", "read"),
        Need.ADMIN: new_token(tmp_path / "tokens.json", "admin"),
        Need.PEER: PEER_TOKEN,
    }
    door = door_at(tmp_path)

    for owned, token in by_need.items():
        for need in by_need:
            if need is owned or owned is Need.PEER:
                door.caller(headers(token, "a"), need)
            else:
                with pytest.raises(ForbiddenError):
                    door.caller(headers(token, "a"), need)


def test_a_token_of_a_tenant_is_for_it_alone_and_names_it(tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens.json", "read", "write", "admin", tenants=("a",))
    door = door_at(tmp_path)

    assert door.caller(headers(token), Need.READ) == Caller(("a",), everything=False)
    assert door.caller(headers(token, "a"), Need.WRITE).tenant == "a"
    for named in ("b", "a|b"):
        with pytest.raises(ForbiddenError):
            door.caller(headers(token, named), Need.READ)
    with pytest.raises(ForbiddenError):
        door.caller(headers(token), Need.ADMIN)


def test_where_tenants_are_off_a_token_of_a_tenant_opens_nothing(tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens.json", "read", tenants=("a",))

    with pytest.raises(ForbiddenError):
        door_at(tmp_path, multitenancy=False).caller(headers(token), Need.READ)


def test_a_page_is_opened_before_it_is_known_whose_data_it_shows_but_not_without_a_token(tmp_path: Path) -> None:
    one, every = (new_token(tmp_path / "tokens.json", "read", tenants=(who,)) for who in ("a", "*"))
    door = door_at(tmp_path)

    assert door.caller(headers(every), Need.PAGE).tenants == ()
    assert door.caller(headers(every, "b"), Need.PAGE).tenants == ("b",)
    assert door.caller(headers(one), Need.PAGE).tenants == ("a",)
    with pytest.raises(ForbiddenError):
        door.caller(headers(one, "b"), Need.PAGE)
    with pytest.raises(UnauthenticatedError):
        door.caller({}, Need.PAGE)


def test_a_browser_may_show_the_token_as_a_password(tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens.json", "read")
    basic = base64.b64encode(f"anybody:{token}".encode()).decode()

    assert door_at(tmp_path).caller({"authorization": f"Basic {basic}", "x-scope-orgid": "a"}, Need.READ)


def test_tokens_without_a_secret_of_the_peers_are_a_wrong_setting(tmp_path: Path) -> None:
    new_token(tmp_path / "tokens.json", "read")

    with pytest.raises(SettingsError, match=r"peer_token is empty"):
        Door(Settings(doors=DoorSettings(tokens_path=str(tmp_path / "tokens.json"))))


def test_a_token_is_kept_as_a_hash_and_can_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    text, kept = tokens.made(("read",), ("a",), "for Grafana")
    add_token(path, kept)

    assert text.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert tokens.found(read_tokens(path), text) == kept
    revoke_token(path, kept.id)
    assert tokens.found(read_tokens(path), text) is None
    with pytest.raises(NotFoundError):
        revoke_token(path, kept.id)


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "tokens": []}', '{"version": 1, "tokens": [{"id": "x"}]}'])
def test_a_file_that_holds_no_tokens_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)

    with pytest.raises(SettingsError, match="tokens file"):
        door_at(tmp_path)


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path, now = tmp_path / "file.json", [0.0]
    path.write_text("1")

    def read(text: str) -> int:
        try:
            return int(json.loads(text))
        except ValueError as error:
            raise SettingsError("no number") from error

    file = WatchedFile(path, "test", read, lambda: now[0])
    path.write_text("22")
    assert file.value == 1  # it was looked at within the second
    now[0] = 1.0
    assert file.value == 22
    for broken in ("x", None):
        path.unlink() if broken is None else path.write_text(broken)
        now[0] += 1.0
        assert file.value == 22
    path.write_text("333")
    now[0] += 1.0
    assert file.value == 333


def test_a_door_learns_of_new_and_revoked_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.doors.watched.LOOK_EVERY_S", 0.0)
    path = tmp_path / "tokens.json"
    first = new_token(path, "read")
    door = door_at(tmp_path)
    second = new_token(path, "read")
    door.caller(headers(second, "a"), Need.READ)
    revoke_token(path, first.split("_")[1])

    with pytest.raises(UnauthenticatedError):
        door.caller(headers(first, "a"), Need.READ)


def test_the_peers_secret_is_shown_in_no_text_of_the_settings() -> None:
    settings = Settings(doors=DoorSettings(peer_token=SecretStr(PEER_TOKEN), token=SecretStr(PEER_TOKEN)))

    assert PEER_TOKEN not in repr(settings) + str(settings) + settings.model_dump_json()
