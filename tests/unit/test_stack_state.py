"""What a stack remembers, and where addresses come from."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from penstock.stack import Stack, StackError
from penstock.stack.process import ProcessId
from penstock.stack.roster import Roster, RosterFile, RunningService
from penstock.stack.state import PartRecord, StackFolder, default_state_dir
from penstock.stack.status import redact

DEAD = ProcessId(1, "another boot/1")


def folder_with(tmp_path: Path, **parts: PartRecord) -> StackFolder:
    folder = StackFolder(tmp_path, "default")
    folder.create()
    folder.write(parts)
    return folder


@pytest.mark.parametrize("name", ["", "../up", "A", "a b", "-x", "a" * 42])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StackError, match="is no name for a stack"):
        StackFolder(tmp_path, name)


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = {"kafka": PartRecord({"broker": 20_001, "controller": 20_002}, DEAD, 12.5), "redis": PartRecord()}
    assert folder_with(tmp_path, **parts).read() == parts


def test_a_state_file_of_another_format_is_not_guessed_at(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    (folder.root / "stack.json").write_text('{"format": 99, "parts": {}}')
    with pytest.raises(StackError, match=r"stack\.json has format 99"):
        folder.read()
    (folder.root / "stack.json").write_text("{")
    with pytest.raises(StackError, match=r"stack\.json is unreadable"):
        folder.read()


def test_only_a_stack_is_purged(tmp_path: Path) -> None:
    other = tmp_path / "default"
    other.mkdir()
    (other / "precious").touch()
    StackFolder(tmp_path, "default").purge()
    assert (other / "precious").exists()
    folder = folder_with(tmp_path)
    folder.purge()
    assert not folder.root.exists()


def test_two_commands_never_work_on_a_stack_at_once(tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with StackFolder(tmp_path, "default").lock(5):
            inside.set()
            leave.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert inside.wait(20)
        with pytest.raises(StackError, match="another command"), StackFolder(tmp_path, "default").lock(0.2):
            pytest.fail("both hold the lock")
        with StackFolder(tmp_path, "other").lock(0.2):
            pass
    finally:
        leave.set()
        holder.join()


def test_state_lies_where_the_environment_says_else_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    below = project / "services" / "intake"
    (project / "schemas" / "topics").mkdir(parents=True)
    below.mkdir(parents=True)
    (project / "pyproject.toml").touch()
    monkeypatch.chdir(below)
    assert default_state_dir({"PENSTOCK_STATE_DIR": "/somewhere"}) == Path("/somewhere")
    assert default_state_dir({}) == project / ".penstock"
    monkeypatch.chdir(tmp_path)
    assert default_state_dir({}) == tmp_path / ".penstock"


def test_given_addresses_win_and_the_rest_is_this_stacks_own(tmp_path: Path) -> None:
    folder_with(
        tmp_path,
        kafka=PartRecord({"broker": 20_001, "controller": 20_002}, DEAD),
        registry=PartRecord({"http": 20_003, "management": 20_004}, DEAD),
        redis=PartRecord({"redis": 20_005}, DEAD),
    )
    stack = Stack.open(
        "default", tmp_path, environ={"KAFKA_BOOTSTRAP": "kafka:9092", "QDRANT_URL": "http://qdrant:6333"}
    )
    assert stack.environment() == {
        "KAFKA_BOOTSTRAP": "kafka:9092",
        "SCHEMA_REGISTRY_URL": "http://127.0.0.1:20003/apis/ccompat/v7",
        "REDIS_URL": "redis://127.0.0.1:20005/0",
        "QDRANT_URL": "http://qdrant:6333",
    }
    alone = Stack.open("default", tmp_path, environ={})
    assert alone.environment()["QDRANT_PATH"] == str(tmp_path / "default" / "data" / "qdrant")


def test_a_stack_keeps_a_secret_of_its_own_for_its_own_kafka(tmp_path: Path) -> None:
    assert Stack.open("default", tmp_path, environ={}).secrets() == {}
    folder = folder_with(tmp_path, kafka=PartRecord({"broker": 20_001, "controller": 20_002}, DEAD))
    stack = Stack.open("default", tmp_path, environ={})
    made = stack.secrets()
    assert len(bytes.fromhex(made["PENSTOCK_KEYS_SECRET"])) == 32
    assert [file.stat().st_mode & 0o777 for file in folder.root.glob("*keys*")] == [0o600]
    # It is told again, and to whoever names this stack's own Kafka; not for one that others share.
    own = {"KAFKA_BOOTSTRAP": stack.known_addresses()["KAFKA_BOOTSTRAP"]}
    assert Stack.open("default", tmp_path, environ=own).secrets() == made
    assert Stack.open("default", tmp_path, environ={"KAFKA_BOOTSTRAP": "kafka:9092"}).secrets() == {}
    assert Stack.open("default", tmp_path, environ={"PENSTOCK_KEYS_SECRET": "given"}).secrets() == {}
    assert made["PENSTOCK_KEYS_SECRET"] not in str(stack.known_addresses())


def test_an_address_that_is_not_known_names_the_part_and_the_remedy(tmp_path: Path) -> None:
    stack = Stack.open("mine", tmp_path, environ={"KAFKA_BOOTSTRAP": "kafka:9092"})
    with pytest.raises(StackError, match=r"Schema registry .*`penstock stack up --name mine`.*SCHEMA_REGISTRY_URL"):
        stack.environment()
    assert stack.known_addresses()["KAFKA_BOOTSTRAP"] == "kafka:9092"


@pytest.mark.parametrize("port", ["x", "0", "70000", "-1"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    with pytest.raises(StackError, match="PENSTOCK_KAFKA_PORT="):
        Stack.open("default", tmp_path, environ={"PENSTOCK_KAFKA_PORT": port})


def test_a_given_part_is_not_this_stacks_to_break(tmp_path: Path) -> None:
    stack = Stack.open("default", tmp_path, environ={"REDIS_URL": "redis://elsewhere"})
    with pytest.raises(StackError, match="is given"):
        stack.kill("redis")
    with pytest.raises(StackError, match="does not run"):
        stack.kill("kafka")
    with pytest.raises(StackError, match="no part 'qdrant'"):
        stack.kill("qdrant")


def test_one_supervisor_a_stack(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    with RosterFile(folder).claim():
        RosterFile(folder).write(Roster(DEAD, {"intake": RunningService(DEAD, 20_001)}))
        with pytest.raises(StackError, match=r"another `penstock run` \(pid 1\)"), RosterFile(folder).claim():
            pytest.fail("both have it")
    with RosterFile(folder).claim():
        assert RosterFile(folder).read() == Roster(DEAD, {"intake": RunningService(DEAD, 20_001)})
        RosterFile(folder).stop_leftovers(lambda text: pytest.fail("nothing of it runs"))
        assert RosterFile(folder).read() is None


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("https://user:pass@registry/apis?x=1", "https://***@registry/apis?x=1"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
        ("a:9092,b:9092", "a:9092,b:9092"),
        ("redis://host:6379/0", "redis://host:6379/0"),
    ],
)
def test_logins_in_addresses_are_masked(address: str, shown: str) -> None:
    assert redact(address) == shown
