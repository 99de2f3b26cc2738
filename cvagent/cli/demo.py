"""`cvagent demo`: the whole thing on one machine, with nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cvagent.standin import TOKEN, StandIn
from cvagent.standin.recorded import install

_LAB = Path(__file__).resolve().parents[2] / "lab"
_COLOURS = {"RUNNING": "cyan", "COMPLETED": "green", "FAILED": "red", "CANCELLED": "yellow"}
# The recording holds no nodes; a node of the lab has virtual interfaces alone.
_NO_NODES = {"CVAGENT_NODE_FACTS": "off"}
_LAB_NODES = {"CVAGENT_NODE_INTERVAL_S": "5", "CVAGENT_INVENTORY_ALLOW": "^ens"}
_ROWS = 24
_PARTING_S = 15
_PLAIN_EVERY_S = 10
_PLAIN_WIDTH = 110


def show_demo(*, nodes: int, recorded: bool, seconds: int | None) -> int:
    """Run until Ctrl-C, SIGTERM, or so many seconds; the exit code."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    signal.signal(signal.SIGTERM, _interrupt)
    reason = "asked for by --recorded" if recorded else _why_not_real()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cvagent-demo-", dir="/var/tmp")))
            folder.chmod(0o755)  # munge wants to be reached by everybody
            bin_dir = _replay(folder, reason, console) if reason else _real(folder, nodes, stack, console)
            stand_in = stack.enter_context(StandIn())
            _start(
                stack,
                [sys.executable, "-m", "cvagent"],
                folder / "agent.log",
                _agent_settings(folder, bin_dir, stand_in) | (_NO_NODES if reason else _LAB_NODES),
            )
            _watch(console, stand_in, folder, seconds)
    except KeyboardInterrupt:
        console.print("\nstopped; everything is cleaned up")
    except (OSError, subprocess.CalledProcessError) as error:
        console.print(f"the demo could not go on: {error}", style="red")
        return 1
    return 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _why_not_real() -> str | None:
    """Why there can be no real Slurm here; None when there can."""
    if not (_LAB / "slurm").exists():
        return "the lab comes with a checkout of the project, not with the installed package"
    if os.geteuid() != 0:
        return "a real Slurm in namespaces of its own takes root"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [
        name
        for name in ("slurmctld", "slurmd", "slurmdbd", "mariadbd", "munged", "ip")
        if not shutil.which(name, path=path)
    ]
    return (
        f"not installed: {', '.join(missing)} (Debian's packages; lab/packages slurm installs them)"
        if missing
        else None
    )


def _replay(folder: Path, reason: str, console: Console) -> Path:
    console.print(
        f"[yellow]No real Slurm: {reason}.[/] Replaying a recorded cluster through stub Slurm commands instead."
    )
    return install(folder / "bin")


def _real(folder: Path, nodes: int, stack: ExitStack, console: Console) -> Path:
    lab = dict(os.environ, LAB=str(folder / "lab"), LAB_CRED_EXPIRE="5", LAB_SLURMD_TIMEOUT="10")
    console.print(f"Starting a real Slurm with {nodes} nodes on this machine ...")
    stack.callback(subprocess.run, [str(_LAB / "slurm"), "down", "--wipe"], env=lab, check=False)
    subprocess.run([str(_LAB / "slurm"), "up", str(nodes)], env=lab, check=True, stdout=subprocess.DEVNULL)
    _start(stack, [sys.executable, str(_LAB / "trickle.py")], folder / "trickle.log", lab)
    return folder / "lab" / "bin"


def _agent_settings(folder: Path, bin_dir: Path, stand_in: StandIn) -> dict[str, str]:
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CVAGENT_")}
    return kept | {
        "CVAGENT_ENV_FILE": os.devnull,
        "CVAGENT_MODE": "push",
        "CVAGENT_CLOUDVISION_URL": stand_in.url,
        "CVAGENT_CLOUDVISION_TOKEN_FILE": str(folder / "token"),
        "CVAGENT_SLURM_BIN_DIR": str(bin_dir),
        "CVAGENT_JOB_INTERVAL_S": "2",
        "CVAGENT_HTTP_LISTEN": "127.0.0.1:0",
    }


def _start(stack: ExitStack, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
    """Start a program that is ended, and waited for, with the demo. Ctrl-C reaches it through us alone."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=dict(env), start_new_session=True
        )
    stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PARTING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _watch(console: Console, stand_in: StandIn, folder: Path, seconds: int | None) -> None:
    console.print(f"What CloudVision holds:  [bold]{stand_in.url}/[/]")
    console.print(f"The agent's status page: [bold]{_agent_page(folder)}[/]")
    console.print("Ctrl-C stops and removes everything.\n")
    until = time.monotonic() + seconds if seconds else float("inf")
    if not console.is_terminal:
        _print_plainly(console, stand_in, until)
        return
    with Live(console=console, auto_refresh=False) as live:
        while time.monotonic() < until:
            live.update(_table(stand_in), refresh=True)
            time.sleep(0.5)


def _print_plainly(console: Console, stand_in: StandIn, until: float) -> None:
    while (now := time.monotonic()) < until:
        time.sleep(max(0.0, min(_PLAIN_EVERY_S, until - now)))
        console.print(_table(stand_in))


def _agent_page(folder: Path) -> str:
    """Where the agent says its page is, or its last words when it ended."""
    for _ in range(100):
        with suppress(OSError):
            lines = (folder / "agent.log").read_text().splitlines()
            for line in lines:
                if "status page on " in line:
                    return line.rpartition("status page on ")[2]
            if any("Error" in line for line in lines):
                raise OSError("\n".join(lines[-5:]))
        time.sleep(0.1)
    raise OSError("the agent did not start within 10 s: " + (folder / "agent.log").read_text()[-500:])


def _table(stand_in: StandIn) -> Group:
    jobs = sorted(stand_in.jobs.values(), key=lambda job: (str(job["start_time"]), str(job["key"]["id"])), reverse=True)
    table = Table(title=f"CloudVision holds {len(jobs)} jobs, newest first", title_justify="left", expand=True)
    for column, width in (("job", 9), ("name", 0), ("state", 9), ("nodes", 0), ("start", 8), ("end", 8)):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=width or None, ratio=None if width else 1)
    for job in jobs[:_ROWS]:
        table.add_row(*_cells(job))
    counts = {state: sum(job["state"] == f"JOB_STATE_{state}" for job in jobs) for state in _COLOURS}
    line = Text("   ").join(Text(f"{count} {state.lower()}", style=_COLOURS[state]) for state, count in counts.items())
    if stand_in.nodes:
        line.append(f"   {len(stand_in.nodes)} nodes with their interfaces")
    return Group(table, line)


def _cells(job: Mapping[str, Any]) -> list[Text]:
    state = str(job["state"]).removeprefix("JOB_STATE_")
    nodes = ",".join(job.get("nodes", {}).get("values", ()))
    times = [str(job.get(name, ""))[11:19] for name in ("start_time", "end_time")]
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(job["name"]))
    return [
        Text(job["key"]["id"]),
        Text(name),
        Text(state, style=_COLOURS.get(state, "")),
        Text(nodes),
        *map(Text, times),
    ]
