"""Ports that are free, and processes that are known by more than their pid."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from penstock.stack import process
from penstock.stack.errors import PortInUse
from penstock.stack.ports import free_port, is_free, owner, require_free
from penstock.stack.process import ProcessId

OBEDIENT = "import time; print('on', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
LISTENING = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print('on', flush=True)
time.sleep(600)
"""


class Children:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "child.log"
        self.started: list[ProcessId] = []

    def start(self, program: str, *args: str) -> ProcessId:
        """Run a program and wait for its first line, which says that it is set up."""
        argv = [sys.executable, "-c", program, *args]
        child = process.spawn(argv, cwd=self.log.parent, environ=os.environ, log=self.log)
        self.started.append(child)
        deadline = time.monotonic() + 20
        while "on" not in process.tail(self.log):
            assert time.monotonic() < deadline, process.tail(self.log)
            time.sleep(0.01)
        return child


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path)
    yield made
    for child in made.started:
        process.stop(child, term_s=0)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_can_be_listened_on_and_lies_below_outgoing_connections() -> None:
    port = free_port()
    assert 1024 < port < 32_768
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
    assert is_free(port)


def test_ports_that_are_spoken_for_are_not_given_out() -> None:
    given: set[int] = set()
    for _ in range(200):
        port = free_port(given)
        assert port not in given
        given.add(port)


def test_a_port_in_use_is_refused_with_its_number_its_owner_and_the_remedy(listener: int) -> None:
    assert owner(listener) == f"{_own_name()} (pid {os.getpid()})"
    with pytest.raises(PortInUse, match=rf"Kafka: port {listener} .* in use by .*pid {os.getpid()}.*; pick another"):
        require_free(listener, "Kafka", "pick another")


def test_sigterm_ends_an_obedient_process(children: Children) -> None:
    child = children.start(OBEDIENT)
    assert child.alive
    assert process.resident_bytes(child) > 1_000_000
    assert process.stop(child, term_s=20)
    assert not child.alive
    assert process.resident_bytes(child) is None


def test_a_process_that_ignores_sigterm_is_killed_after_its_deadline(children: Children) -> None:
    child = children.start(STUBBORN)
    begun = time.monotonic()
    assert not process.stop(child, term_s=0.3)
    assert time.monotonic() - begun >= 0.3
    assert not child.alive


def test_a_process_that_only_has_the_pid_is_left_alone(children: Children) -> None:
    child = children.start(OBEDIENT)
    earlier = replace(child, birth="another boot/1")
    assert not earlier.alive
    assert not process.send(earlier, signal.SIGKILL)
    assert process.stop(earlier, term_s=0)
    assert child.alive


def test_a_process_is_found_again_from_what_was_written_down(children: Children) -> None:
    child = children.start(OBEDIENT)
    assert ProcessId.from_json(child.to_json()) == child == process.identify(child.pid)


def test_a_started_process_is_in_a_session_of_its_own(children: Children) -> None:
    child = children.start(OBEDIENT)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


def test_an_ended_child_leaves_no_zombie(children: Children) -> None:
    child = children.start(OBEDIENT)
    process.send(child, signal.SIGKILL)
    assert process.wait_gone(child, 20)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child.pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_the_process_that_listens_is_said_to_listen(children: Children) -> None:
    port = free_port()
    server = children.start(LISTENING, str(port))
    assert process.listens(server, port)
    other = process.identify(os.getpid())
    assert other is not None
    assert not process.listens(other, port)


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert process.tail(log) == ""
    log.write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert process.tail(log, 2) == "line 49998\nline 49999"
    process.rotate(log)
    assert not log.exists()
    assert (tmp_path / "a.log.1").read_text().startswith("line 0\n")


def _own_name() -> str:
    return Path("/proc/self/comm").read_text().strip()
