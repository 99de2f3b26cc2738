"""`cvagent demo`: the whole thing on one machine, with nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from cvagent.cli.demo_tables import Tenants, tables
from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.runner import NativeRunner
from cvagent.standin import TOKEN, StandIn
from cvagent.standin.portal import PortalStandIn, furnish
from cvagent.standin.recorded import install

_LAB = Path(__file__).resolve().parents[2] / "lab"
_CLUSTER = "lab"
# A node of the lab has virtual interfaces alone; the recording holds no nodes.
_REAL = {"CVAGENT_MODE": "both", "CVAGENT_NODE_INTERVAL_S": "5", "CVAGENT_INVENTORY_ALLOW": "^ens"}
_RECORDED = {"CVAGENT_MODE": "push", "CVAGENT_NODE_FACTS": "off"}
# What is ordered is what may be used, in minutes: hours would not be seen to grow.
_COMPONENTS = """\
cpu: {measured_unit: minutes, accounting_type: limit, label: CPU}
gres/gpu: {measured_unit: minutes, accounting_type: limit, label: GPU}
"""
_FIRST_ORDER = {"cpu": 600, "gres/gpu": 300}
_ROWS = 24
_FRAMES = 10  # lines of a screen that titles and frames take
_COMMAND_LIMIT_S = 20
_PARTING_S = 15
_LIVE_EVERY_S = 1.0
_PLAIN_EVERY_S = 10
_PLAIN_WIDTH = 110


def show_demo(*, nodes: int, recorded: bool, seconds: int | None) -> int:
    """Run until Ctrl-C, SIGTERM, or so many seconds; the exit code."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _interrupt)
    reason = "asked for by --recorded" if recorded else _why_not_real()
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cvagent-demo-", dir="/var/tmp")))
            folder.chmod(0o755)  # munge wants to be reached by everybody
            stand_in = stack.enter_context(StandIn())
            if reason:
                tenants, settings = None, _replayed(folder, reason, console)
            else:
                tenants, settings = _real(folder, nodes, stack, console)
            log = folder / "agent.log"
            _start(stack, [sys.executable, "-m", "cvagent"], log, _agent_settings(folder, stand_in) | settings)
            _introduce(console, stand_in, tenants, log)
            _watch(console, lambda: tables(stand_in, tenants, _rows(console)), seconds)
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


def _replayed(folder: Path, reason: str, console: Console) -> dict[str, str]:
    """Settings of an agent beside a recorded cluster."""
    console.print(
        f"[yellow]No real Slurm: {reason}.[/] Replaying a recorded cluster through stub Slurm commands instead; "
        "they make no accounts, so there is no tenant portal."
    )
    return _RECORDED | {"CVAGENT_SLURM_BIN_DIR": str(install(folder / "bin"))}


def _real(folder: Path, nodes: int, stack: ExitStack, console: Console) -> tuple[Tenants, dict[str, str]]:
    """A real Slurm and a portal in front of it, with settings of an agent between them."""
    lab = dict(os.environ, LAB=str(folder / "lab"), LAB_CLUSTER=_CLUSTER, LAB_CRED_EXPIRE="5", LAB_SLURMD_TIMEOUT="10")
    console.print(f"Starting a real Slurm with {nodes} nodes on this machine ...")
    stack.callback(subprocess.run, [str(_LAB / "slurm"), "down", "--wipe"], env=lab, check=False)
    up = [str(_LAB / "slurm"), "up", str(nodes)]
    subprocess.run(up, env=lab, check=True, stdout=subprocess.DEVNULL, start_new_session=True)
    for name in ("trickle", "provider"):
        _start(stack, [sys.executable, str(_LAB / f"{name}.py")], folder / f"{name}.log", lab)
    bin_dir = folder / "lab" / "bin"
    portal = stack.enter_context(PortalStandIn())
    slurm = SlurmAccounts(NativeRunner(bin_dir), _CLUSTER, _COMMAND_LIMIT_S)
    return Tenants(portal, slurm), _REAL | _portal_settings(folder, portal) | {"CVAGENT_SLURM_BIN_DIR": str(bin_dir)}


def _portal_settings(folder: Path, portal: PortalStandIn) -> dict[str, str]:
    """Puts people and a first order into the portal; how the agent reaches it, as often as it may."""
    furnish(portal.market)
    portal.market.create(next(iter(portal.market.projects.values())), "bert", _FIRST_ORDER)
    components = folder / "components.yaml"
    components.write_text(_COMPONENTS)
    return {
        "CVAGENT_PORTAL_URL": portal.url,
        "CVAGENT_PORTAL_TOKEN_FILE": str(folder / "token"),
        "CVAGENT_PORTAL_OFFERING": portal.market.offering,
        "CVAGENT_PORTAL_INTERVAL_S": "5",
        "CVAGENT_PORTAL_TEAM_INTERVAL_S": "0",
        "CVAGENT_USAGE_INTERVAL_S": "60",
        "CVAGENT_COMPONENTS_FILE": str(components),
        "CVAGENT_TENANT_NODES": "reservation",
    }


def _agent_settings(folder: Path, stand_in: StandIn) -> dict[str, str]:
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CVAGENT_")}
    return kept | {
        "CVAGENT_ENV_FILE": os.devnull,
        "CVAGENT_CLOUDVISION_URL": stand_in.url,
        "CVAGENT_CLOUDVISION_TOKEN_FILE": str(folder / "token"),
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


def _introduce(console: Console, stand_in: StandIn, tenants: Tenants | None, log: Path) -> None:
    if tenants:
        console.print(f"The tenant portal:       [bold]{tenants.portal.url}/[/]  to order, change and terminate at")
    console.print(f"What CloudVision holds:  [bold]{stand_in.url}/[/]")
    console.print(f"The agent's status page: [bold]{_agent_page(log)}[/]")
    console.print("Ctrl-C stops and removes everything.\n")


def _watch(console: Console, shown: Callable[[], Group], seconds: int | None) -> None:
    until = time.monotonic() + seconds if seconds else float("inf")
    if not console.is_terminal:
        _print_plainly(console, shown, until)
        return
    with Live(console=console, auto_refresh=False) as live:
        while time.monotonic() < until and console.is_terminal:  # it may be closed
            live.update(shown(), refresh=True)
            time.sleep(_LIVE_EVERY_S)


def _print_plainly(console: Console, shown: Callable[[], Group], until: float) -> None:
    while (now := time.monotonic()) < until:
        time.sleep(max(0.0, min(_PLAIN_EVERY_S, until - now)))
        console.print(shown(), "", sep="\n")


def _rows(console: Console) -> int:
    """How many lines of tables a screen has room for."""
    return min(_ROWS, console.height - _FRAMES) if console.is_terminal else _ROWS


def _agent_page(log: Path) -> str:
    """Where the agent says its page is, or its last words when it ended."""
    for _ in range(100):
        lines = log.read_text().splitlines()
        for line in lines:
            if "status page on " in line:
                return line.rpartition("status page on ")[2]
        if any("Error" in line for line in lines):
            raise OSError("\n".join(lines[-5:]))
        time.sleep(0.1)
    raise OSError("the agent did not start within 10 s: " + log.read_text()[-500:])
