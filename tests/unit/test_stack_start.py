"""Starting a stack's parts: ports that are taken meanwhile, failures, and calling off. With a small server as the part."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from penstock.stack import Stack, StackError, process
from penstock.stack.artifacts import ArtifactStore
from penstock.stack.errors import NotReady, PartFailed, PortInUse
from penstock.stack.part import Command, Install, Part
from penstock.stack.ports import HOST, free_port
from penstock.stack.state import PartRecord, StackFolder

SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    connection.sendall(b"hello")
    connection.close()
"""


class Greeter:
    """A part that greets whoever connects. ``thieves`` take its port between choice and start, as others may."""

    title = "Greeter"
    ports = ("tcp",)
    start_timeout_s = 20.0
    stop_timeout_s = 5.0

    def __init__(self, name: str = "greeter", *, program: str = SERVER, thefts: int = 0) -> None:
        self.name = name
        self.variable = f"{name.upper()}_ADDRESS"
        self.program = program
        self.thefts = thefts
        self.thieves: list[socket.socket] = []

    def install(self, install: Install) -> Path:
        return Path(sys.executable)

    def prepare(self, software: Path, home: Path, ports: Mapping[str, int]) -> Command:
        if len(self.thieves) < self.thefts:
            self.thieves.append(socket.create_server((HOST, ports["tcp"])))
        return Command([str(software), "-c", self.program, str(ports["tcp"])])

    def address(self, ports: Mapping[str, int]) -> str:
        return f"{HOST}:{ports['tcp']}"

    def probe(self, address: str, environ: Mapping[str, str], timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout_s) as connection:
                if connection.recv(5) != b"hello":
                    raise NotReady("no hello")
        except OSError as error:
            raise NotReady(str(error)) from error


class Made:
    """Stacks of such parts; all of one name, as several commands would open it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stacks: list[Stack] = []

    def __call__(self, *parts: Part, **environ: str) -> Stack:
        folder = StackFolder(self.folder, "default")
        store = ArtifactStore(self.folder / "cache")
        self.stacks.append(Stack(folder, {**os.environ, **environ}, store, {}, parts, port_release_s=0.2))
        return self.stacks[-1]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    for stack in made.stacks:
        stack.down()


def test_a_port_that_is_taken_between_choice_and_start_is_replaced(make: Made) -> None:
    greeter = Greeter(thefts=2)
    stack = make(greeter)
    notes: list[str] = []
    assert stack.up(lambda part, text: notes.append(text)).up
    taken = {thief.getsockname()[1] for thief in greeter.thieves}
    assert len(taken) == 2
    assert stack.folder.read()["greeter"].ports["tcp"] not in taken
    assert sum("was taken meanwhile" in note for note in notes) == 2
    for thief in greeter.thieves:
        thief.close()


def test_it_gives_up_when_every_port_is_taken(make: Made) -> None:
    greeter = Greeter(thefts=99)
    stack = make(greeter)
    with pytest.raises(PartFailed, match="its process ended before it answered") as failure:
        stack.up()
    assert "Address already in use" in failure.value.log_tail
    assert len(greeter.thieves) == 3
    for thief in greeter.thieves:
        thief.close()


def test_anothers_server_on_the_port_is_not_taken_for_the_part(make: Made) -> None:
    """The thief greets as the part would, so asking it alone would prove nothing."""
    program = f"import time; time.sleep(600) # {uuid.uuid4().hex}"
    greeter = Greeter(program=program)
    greeter.start_timeout_s = 1.0
    stack = make(greeter)
    ready = threading.Event()

    def note(part: str, text: str) -> None:
        if text.startswith("starting on port"):
            port = text.removeprefix("starting on port ")
            impostors.append(subprocess.Popen([sys.executable, "-c", SERVER, port]))
        if text.startswith("ready"):
            ready.set()

    impostors: list[subprocess.Popen[bytes]] = []
    with pytest.raises(PartFailed, match="did not answer within 1 s"):
        stack.up(note)
    assert not ready.is_set()
    for impostor in impostors:
        impostor.kill()
        impostor.wait()
    # Every try has been ended, not only the last.
    assert [p.pid for p in psutil.process_iter(["cmdline"]) if program in (p.info["cmdline"] or [])] == []


def test_after_a_stop_the_old_port_is_kept_if_it_is_free_else_left(make: Made) -> None:
    stack = make(Greeter())
    stack.up()
    first = stack.folder.read()["greeter"].ports["tcp"]
    stack.down()
    stack.up()
    assert stack.folder.read()["greeter"].ports["tcp"] == first
    stack.down()
    with socket.create_server((HOST, first)):
        stack.up()
        assert stack.folder.read()["greeter"].ports["tcp"] != first


def test_after_a_crash_only_the_old_port_will_do(make: Made) -> None:
    stack = make(Greeter())
    stack.up()
    port = stack.folder.read()["greeter"].ports["tcp"]
    stack.kill("greeter")
    with socket.create_server((HOST, port)):
        with pytest.raises(PortInUse, match=rf"Greeter: port {port} .*pid {os.getpid()}.*expect it there again"):
            stack.up()
    assert stack.up().up
    assert stack.folder.read()["greeter"].ports["tcp"] == port


def test_a_part_that_fails_takes_down_what_this_start_brought_up_and_no_more(make: Made) -> None:
    running = Greeter("running")
    make(running).up()
    broken = Greeter("broken", program="raise SystemExit('the disk is on fire')")
    stack = make(running, Greeter("fresh"), broken)
    with pytest.raises(PartFailed, match="broken: its process ended before it answered") as failure:
        stack.up()
    assert failure.value.log_tail == "the disk is on fire"
    states = {part.name: part.state for part in stack.status().parts}
    assert states == {"running": "running", "fresh": "stopped", "broken": "stopped", "qdrant": "embedded"}


def test_up_waits_for_a_part_that_an_interrupted_up_left_starting(make: Made, tmp_path: Path) -> None:
    stack = make(Greeter())
    stack.folder.create()
    port = free_port()
    argv = [sys.executable, "-c", "import time; time.sleep(0.5)\n" + SERVER, str(port)]
    starting = process.spawn(argv, cwd=tmp_path, environ=os.environ, log=tmp_path / "log")
    stack.folder.write({"greeter": PartRecord({"tcp": port}, starting, 0.0)})
    assert stack.status().parts[0].state == "unhealthy"
    status = stack.up()
    assert status.parts[0].state == "running"
    assert status.parts[0].pid == starting.pid


def test_a_given_address_replaces_the_part(make: Made) -> None:
    make(Greeter()).up()
    address = make.stacks[0].known_addresses()["GREETER_ADDRESS"]
    other = make(Greeter(), GREETER_ADDRESS=address)
    assert other.up().parts[0].state == "given"
    with pytest.raises(StackError, match="given in GREETER_ADDRESS but does not answer"):
        make(Greeter(), GREETER_ADDRESS="127.0.0.1:1").up()


def test_two_ups_at_once_start_one_process(make: Made) -> None:
    stacks = [make(Greeter()), make(Greeter())]
    threads = [threading.Thread(target=stack.up) for stack in stacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = stacks[0].folder.read()["greeter"]
    assert record.process is not None
    assert record.process.alive
    port = record.ports["tcp"]
    assert process.listens(record.process, port)
    pids = [part.pid for stack in stacks for part in stack.status().parts if part.name == "greeter"]
    assert pids == [record.process.pid] * 2
