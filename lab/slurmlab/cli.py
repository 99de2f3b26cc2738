"""The command line of the lab."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from slurmlab import cluster, daemons, nodes, preflight
from slurmlab import settings as lab_settings
from slurmlab.errors import LabError
from slurmlab.namespaces import need_holder

NODE_ACTIONS = ("kill", "stop", "cut", "join", "start")
DAEMON_ACTIONS = ("stop", "start", "kill", "freeze", "thaw", "restart")
DAEMONS = ("slurmctld", "slurmdbd", "mariadbd")


def main(arguments: Sequence[str]) -> int:
    """Runs one command; 1 and a line on stderr when it cannot."""
    # Debian keeps the daemons where a plain user's PATH does not look.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    try:
        folder = lab_settings.folder_from(os.environ)
        if arguments[:1] == ["run"]:
            _run(arguments[1:], folder)  # argparse would take its options for its own
        parsed = _parser().parse_args(arguments)
        parsed.run(parsed, folder)
    except LabError as error:
        print(f"lab/slurm: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab/slurm", description=__doc__, epilog="See lab/README.md.")
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start a lab of N nodes, or what is missing of it")
    up.add_argument("nodes", type=int, metavar="N")
    up.add_argument("--mode", choices=lab_settings.MODES, default=lab_settings.MODES[0])
    up.set_defaults(run=_up)
    down = commands.add_parser("down", help="stop it")
    down.add_argument("--wipe", action="store_true", help="and remove its folder")
    down.set_defaults(run=lambda parsed, folder: cluster.down(folder, wipe=parsed.wipe))
    commands.add_parser("run", help="run [-n nodeX] [-u USER] CMD...: a command inside, as root on the controller")
    check = commands.add_parser("check", help="say what this machine lacks for a lab")
    check.add_argument("--no-accounting", action="store_true")
    check.set_defaults(run=_check)
    status = commands.add_parser("status", help="say what runs")
    status.set_defaults(run=lambda _, folder: print(cluster.status(folder)))
    node = commands.add_parser("node", help="break a node, or mend it")
    node.add_argument("action", choices=NODE_ACTIONS)
    node.add_argument("name", metavar="nodeX")
    node.set_defaults(run=_node)
    daemon = commands.add_parser("daemon", help="break a daemon, or mend it")
    daemon.add_argument("action", choices=DAEMON_ACTIONS)
    daemon.add_argument("name", choices=DAEMONS)
    daemon.set_defaults(run=_daemon)
    return parser


def _up(parsed: argparse.Namespace, folder: str) -> None:
    if parsed.nodes < 1:
        raise LabError(f"a lab of {parsed.nodes} nodes makes no sense")
    del folder
    cluster.up(lab_settings.from_environment(os.environ, parsed.nodes, parsed.mode))


def _run(arguments: Sequence[str], folder: str) -> NoReturn:
    need_holder(folder)
    enter = str(Path(folder, "enter"))
    os.execv(enter, [enter, *arguments])  # noqa: S606 - a list of words


def _check(parsed: argparse.Namespace, folder: str) -> None:
    del folder
    reason = preflight.missing(accounting=not parsed.no_accounting)
    if reason:
        raise LabError(reason)


def _node(parsed: argparse.Namespace, folder: str) -> None:
    settings = lab_settings.load(folder)
    if parsed.name not in settings.names:
        raise LabError(f"there is no {parsed.name}: this lab has node1 to node{settings.nodes}")
    getattr(nodes, parsed.action)(settings, parsed.name)
    if parsed.action == "start":
        nodes.wait_until_up(settings, parsed.name)


def _daemon(parsed: argparse.Namespace, folder: str) -> None:
    settings = lab_settings.load(folder)
    if parsed.action in ("stop", "restart"):
        daemons.stop(settings, parsed.name)
    if parsed.action in ("start", "restart"):
        daemons.start(settings, parsed.name)
    if parsed.action == "kill":
        daemons.kill(settings, parsed.name)
    if parsed.action in ("freeze", "thaw"):
        daemons.signal(settings, parsed.name, daemons.SIGNALS[parsed.action])
