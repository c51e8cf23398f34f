"""Settings from flags, variables, a file and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.errors import SettingsError
from topics.settings import Settings, allowed, fields, flag_of, load, load_settings, origins, variable_of


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings file, no variables."""
    monkeypatch.chdir(tmp_path)
    for section, name, _ in fields():
        monkeypatch.delenv(variable_of(f"{section}.{name}"), raising=False)
    monkeypatch.delenv("SPANSTREAM_CONFIG", raising=False)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_without_any_source_every_setting_has_its_default() -> None:
    loaded = load()

    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_a_flag_beats_a_variable_which_beats_the_file_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = written(tmp_path / "a.toml", "[kafka]\npartitions = 2\nretention_h = 2\ngroup = 'two'\n")
    monkeypatch.setenv("SPANSTREAM_KAFKA_PARTITIONS", "3")
    monkeypatch.setenv("SPANSTREAM_KAFKA_RETENTION_H", "3")

    loaded = load({"kafka.partitions": 4, "kafka.group": None}, file)

    kafka = loaded.settings.kafka
    assert (kafka.partitions, kafka.retention_h, kafka.group) == (4, 3.0, "two")
    assert loaded.origins["kafka.partitions"] == "flag --kafka-partitions"
    assert loaded.origins["kafka.retention_h"] == "variable SPANSTREAM_KAFKA_RETENTION_H"
    assert loaded.origins["kafka.group"] == f"file {file}"
    assert origins()["kafka.topic_prefix"] == "default"


def test_the_file_is_the_named_one_or_spanstream_toml_of_this_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written(tmp_path / "spanstream.toml", "[kafka]\ngroup = 'here'\n")
    other = written(tmp_path / "other.toml", "[kafka]\ngroup = 'there'\n")

    assert load_settings().kafka.group == "here"
    monkeypatch.setenv("SPANSTREAM_CONFIG", str(other))
    assert load_settings().kafka.group == "there"


def test_lists_are_written_with_commas_or_as_a_toml_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", "[store]\nbuckets = ['one', 'two']\n")

    assert load_settings(config=file).store.buckets == ("one", "two")
    monkeypatch.setenv("SPANSTREAM_STORE_BUCKETS", "three, four")
    assert load_settings(config=file).store.buckets == ("three", "four")


def test_all_errors_are_told_at_once_with_name_value_range_and_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = written(tmp_path / "a.toml", "[kafka]\npartitions = 0\ngrup = 'x'\n")
    monkeypatch.setenv("SPANSTREAM_RECEIVER_HTTP_PORT", "99999")
    monkeypatch.setenv("SPANSTREAM_WOKER_PORT", "1")

    with pytest.raises(SettingsError) as error:
        load({"log.level": "loud"}, file)

    assert str(error.value).splitlines() == [
        f"kafka.grup (file {file}) is no setting; did you mean kafka.group?",
        "woker.port (variable SPANSTREAM_WOKER_PORT) is no setting; did you mean worker.port?",
        f"kafka.partitions is 0 (file {file}), must be 1 to 1000",
        "receiver.http_port is '99999' (variable SPANSTREAM_RECEIVER_HTTP_PORT), must be 0 to 65535",
        "log.level is 'loud' (flag --log-level), must be one of debug, info, warning, error",
    ]


def test_a_wrong_secret_is_not_shown() -> None:
    with pytest.raises(SettingsError) as error:
        load({"store.secret_key": ["hunter2"]})

    assert "hunter2" not in str(error.value)
    assert "(hidden)" in str(error.value)


@pytest.mark.parametrize("text", ["kafka = 3\n", "[kafka\n", "\x00"])
def test_a_broken_file_is_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"kafka|cannot be read"):
        load(config=written(tmp_path / "a.toml", text))


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load(config=tmp_path / "absent.toml")


def test_no_two_settings_share_a_flag_or_a_variable() -> None:
    names = [f"{section}.{name}" for section, name, _ in fields()]

    assert len({flag_of(name) for name in names}) == len(names)
    assert len({variable_of(name) for name in names}) == len(names)
    assert not any("_" in section for section in Settings.model_fields)


@given(st.sampled_from(list(fields())), st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()))
def test_any_value_is_taken_or_refused_by_a_sentence(field: tuple[str, str, Any], value: object) -> None:
    name = f"{field[0]}.{field[1]}"
    sentence = ""

    try:
        load({name: value})
    except SettingsError as exc:
        sentence = str(exc)

    assert not sentence or (sentence.startswith(f"{name} is ") and allowed(field[2]) in sentence)


@pytest.mark.parametrize("name", ["A", "a/b", "..", "ab", "Spans"])
def test_a_name_that_no_bucket_can_have_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(SettingsError, match=r"store\.buckets is .*must be names like"):
        load_settings({"store.buckets": name})
