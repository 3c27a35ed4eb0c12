"""What ``penstock run`` shows of its services on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

from penstock.cli.run import services_table
from penstock.stack.member import ServiceSpec
from penstock.stack.state import StackFolder
from penstock.stack.supervisor import Supervisor
from rich.console import Console


async def test_the_table_reads_the_same_where_a_line_was_printed_above_it_as_it_is(tmp_path: Path) -> None:
    supervisor = Supervisor([ServiceSpec("intake", ["python"])], {}, StackFolder(tmp_path, "user"), cwd=tmp_path)
    (intake,) = supervisor.members
    intake.state, intake.waiting_for = "starting", "waiting for: [redis]"
    shown = []
    for markup in (True, False):  # False: how Rich draws it anew below such a line
        out = io.StringIO()
        Console(file=out, width=120).print(services_table(supervisor), markup=markup)
        shown.append(out.getvalue())
    await supervisor.close()
    assert shown[0] == shown[1]
    assert "starting: waiting for: [redis]" in shown[0]
    assert "yellow" not in shown[0]
