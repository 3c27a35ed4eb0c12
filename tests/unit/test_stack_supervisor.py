"""Services under supervision: real processes, with a status page like a service's."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from penstock.stack import StackError
from penstock.stack.member import Member, RestartPolicy
from penstock.stack.roster import RosterFile
from penstock.stack.state import StackFolder
from penstock.stack.supervisor import ServiceFailed, ServiceSpec, Supervisor, service_specs

SERVICE = """
import os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Status(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = not os.path.exists(sys.argv[1])
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"ready" if ready else b"waiting for: the test")
    def log_message(self, *args):
        return

server = HTTPServer(("127.0.0.1", int(os.environ["PENSTOCK_METRICS_PORT"])), Status)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving for", os.environ["KAFKA_BOOTSTRAP"], flush=True)
server.serve_forever()
"""
STUBBORN = SERVICE.replace("lambda *_: threading.Thread(target=server.shutdown).start()", "signal.SIG_IGN")
BROKEN = "print('cannot find the thing it needs'); raise SystemExit(7)"

FAST = RestartPolicy(first_delay_s=0.05, max_delay_s=0.1, max_crashes=3, stop_timeout_s=5)
Make = Callable[..., Supervisor]


def spec(name: str, folder: Path, program: str = SERVICE) -> ServiceSpec:
    return ServiceSpec(name, [sys.executable, "-c", program, str(folder / f"{name}.hold")])


class Changes:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def __call__(self, member: Member, text: str) -> None:
        self.seen.append((member.name, member.state, text))

    def states(self, name: str) -> list[str]:
        return [state for one, state, _ in self.seen if one == name]


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def make(tmp_path: Path, changes: Changes) -> AsyncIterator[Make]:
    made: list[Supervisor] = []
    folder = StackFolder(tmp_path, "default")
    folder.create()

    def factory(*specs: ServiceSpec, policy: RestartPolicy = FAST) -> Supervisor:
        environ = {**os.environ, "KAFKA_BOOTSTRAP": "127.0.0.1:20001"}
        made.append(Supervisor(specs, environ, folder, cwd=tmp_path, policy=policy, on_change=changes))
        return made[-1]

    yield factory
    for supervisor in made:
        await supervisor.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


async def test_services_become_ready_are_measured_and_stop_in_order(
    make: Make, tmp_path: Path, changes: Changes
) -> None:
    async with make(spec("intake", tmp_path), spec("drift", tmp_path)) as supervisor:
        await supervisor.wait_ready(timeout_s=20)
        pids = supervisor.pids()
        assert set(pids) == set(supervisor.rss()) == set(supervisor.metrics()) == {"intake", "drift"}
        assert all(size > 5_000_000 for size in supervisor.rss().values())
        assert len(set(supervisor.metrics().values())) == 2
        roster = RosterFile(StackFolder(tmp_path, "default")).read()
        assert roster is not None
        assert roster.supervisor.pid == os.getpid()
        assert {name: one.process.pid for name, one in roster.services.items()} == pids
        assert "127.0.0.1:20001" in (tmp_path / "default" / "logs" / "intake.log").read_text()
    assert changes.states("intake") == ["starting", "ready", "stopped"]
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert RosterFile(StackFolder(tmp_path, "default")).read() is None


async def test_a_killed_service_comes_back_and_the_others_do_not_notice(make: Make, tmp_path: Path) -> None:
    async with make(spec("intake", tmp_path), spec("drift", tmp_path)) as supervisor:
        await supervisor.wait_ready(timeout_s=20)
        before = supervisor.pids()
        await supervisor.kill("intake")
        assert "intake" not in supervisor.pids()
        await supervisor.wait_ready("intake", timeout_s=20)
        after = supervisor.pids()
        assert after["intake"] != before["intake"]
        assert after["drift"] == before["drift"]


async def test_a_service_can_be_held_down_and_restarted(make: Make, tmp_path: Path, changes: Changes) -> None:
    async with make(spec("intake", tmp_path)) as supervisor:
        await supervisor.wait_ready(timeout_s=20)
        await supervisor.stop("intake")
        assert supervisor.pids() == {}
        with pytest.raises(StackError, match="does not run"):
            await supervisor.kill("intake")
        await supervisor.start("intake")
        await supervisor.wait_ready(timeout_s=20)
        first = supervisor.pids()["intake"]
        await supervisor.restart("intake")
        await supervisor.wait_ready(timeout_s=20)
        assert supervisor.pids()["intake"] != first
    assert "restarting" not in changes.states("intake")


async def test_readiness_is_what_the_service_says(make: Make, tmp_path: Path, changes: Changes) -> None:
    hold = tmp_path / "intake.hold"
    hold.touch()
    async with make(spec("intake", tmp_path)) as supervisor:
        (member,) = supervisor.members
        await until(lambda: member.waiting_for == "waiting for: the test", "the service's own reason")
        with pytest.raises(StackError, match=r"not ready after 0\.1 s: intake: waiting for: the test \(log: "):
            await supervisor.wait_ready(timeout_s=0.1)
        hold.unlink()
        await supervisor.wait_ready(timeout_s=20)
        hold.touch()
        await until(lambda: member.state == "not ready", "the service to be seen as not ready")
    assert changes.states("intake") == ["starting", "ready", "not ready", "stopped"]


async def test_a_service_that_keeps_crashing_is_given_up_with_its_log(
    make: Make, tmp_path: Path, changes: Changes
) -> None:
    async with make(spec("intake", tmp_path, BROKEN)) as supervisor:
        with pytest.raises(ServiceFailed, match="intake ended with exit code 7, 3 times in a row") as failure:
            await supervisor.wait_ready(timeout_s=20)
        assert "cannot find the thing it needs" in failure.value.log_tail
        assert await supervisor.wait_failed() is failure.value
    assert changes.states("intake") == ["starting", "restarting", "starting", "restarting", "starting", "failed"]


async def test_a_command_that_cannot_be_run_is_given_up_at_once(make: Make, tmp_path: Path) -> None:
    async with make(ServiceSpec("intake", [str(tmp_path / "absent")])) as supervisor:
        with pytest.raises(ServiceFailed, match=r"intake cannot be started: .*absent"):
            await supervisor.wait_ready(timeout_s=20)


async def test_a_service_that_ignores_sigterm_is_killed(make: Make, tmp_path: Path, changes: Changes) -> None:
    policy = RestartPolicy(stop_timeout_s=0.3)
    async with make(spec("intake", tmp_path, STUBBORN), policy=policy) as supervisor:
        await supervisor.wait_ready(timeout_s=20)
        pid = supervisor.pids()["intake"]
    assert not psutil.pid_exists(pid)
    assert ("intake", "ready", "did not end within 0.3 s, killed") in changes.seen


async def test_stopping_while_a_restart_is_awaited_starts_nothing(make: Make, tmp_path: Path) -> None:
    policy = RestartPolicy(first_delay_s=60)
    async with make(spec("intake", tmp_path, BROKEN), policy=policy) as supervisor:
        (member,) = supervisor.members
        await until(lambda: member.state == "restarting", "the first crash")
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert member.state == "stopped"


async def test_a_second_supervisor_is_refused(make: Make, tmp_path: Path) -> None:
    async with make(spec("intake", tmp_path)):
        with pytest.raises(StackError, match=rf"already run on stack 'default' .*\(pid {os.getpid()}\)"):
            await make(spec("drift", tmp_path)).start()


async def test_what_a_dead_supervisor_left_running_is_stopped_first(make: Make, tmp_path: Path) -> None:
    """A supervisor killed with SIGKILL cannot stop its services; the next one does."""
    program = f"""
import asyncio, os
from pathlib import Path
from penstock.stack.state import StackFolder
from penstock.stack.supervisor import ServiceSpec, Supervisor

async def main():
    argv = {[sys.executable, "-c", SERVICE, "absent"]!r}
    environ = {{**os.environ, "KAFKA_BOOTSTRAP": "127.0.0.1:20001"}}
    folder = StackFolder(Path({str(tmp_path)!r}), "default")
    async with Supervisor([ServiceSpec("intake", argv)], environ, folder, cwd=Path(".")) as supervisor:
        await supervisor.wait_ready()
        print(supervisor.pids()["intake"], flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environ
    )
    assert first.stdout is not None
    orphan = int(await first.stdout.readline())
    first.kill()
    await first.wait()
    assert psutil.pid_exists(orphan)
    async with make(spec("intake", tmp_path)) as supervisor:
        await supervisor.wait_ready(timeout_s=20)
        await until(lambda: not psutil.pid_exists(orphan), "the orphan to be gone")
        assert supervisor.pids()["intake"] != orphan


def test_crashes_are_answered_later_each_time() -> None:
    policy = RestartPolicy(first_delay_s=0.5, max_delay_s=10)
    assert [policy.delay_s(crashes) for crashes in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("intake", "drift"):
        (tmp_path / "services" / name).mkdir(parents=True)
        (tmp_path / "services" / name / "__main__.py").touch()
    return tmp_path


def test_replicas_have_names_of_their_own(project: Path) -> None:
    specs = service_specs(["intake", "drift"], project, {"intake": 3})
    assert [one.name for one in specs] == ["intake", "intake-2", "intake-3", "drift"]
    assert specs[1].argv == [sys.executable, "-m", "services.intake"]


@pytest.mark.parametrize(
    ("services", "replicas", "message"),
    [
        (["intak"], {}, "no service 'intak' .*there are: intake, drift"),
        (["intake"], {"drift": 2}, "replicas of 'drift', which is not among"),
        (["intake"], {"intake": 0}, "it takes at least one"),
    ],
)
def test_services_that_do_not_exist_are_refused(
    project: Path, services: list[str], replicas: dict[str, int], message: str
) -> None:
    with pytest.raises(StackError, match=message):
        service_specs(services, project, replicas)


def test_a_service_may_have_an_interpreter_of_its_own(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    specs = service_specs(["intake", "drift"], project, interpreters={"drift": str(other)})
    assert [spec.argv[0] for spec in specs] == [sys.executable, str(other)]
    with pytest.raises(StackError, match=r"does not exist: /nowhere/python; `make vllm`"):
        service_specs(["drift"], project, interpreters={"drift": "/nowhere/python"})
    with pytest.raises(StackError, match="'intake', which is not among the services"):
        service_specs(["drift"], project, interpreters={"intake": str(other)})
