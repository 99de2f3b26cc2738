"""The inventory by ssh, with a program in the place of ssh that is strict about how it is called."""

import json
import os
import shlex
import stat
import sys
from pathlib import Path
from threading import Event

import pytest

from cvagent.clients.runner import NativeRunner
from cvagent.clients.slurm_nodes import SlurmNode, inventory_command
from cvagent.clients.ssh_nodes import SshAccess, SshNodes
from cvagent.sources.node_facts import SshInventory

# Its last two arguments are the node and the command, as with ssh; the others must be what was promised.
STRICT = f"""#!{sys.executable}
import os, subprocess, sys
*options, node, command = sys.argv[1:]
assert options[:2] == ["-i", "/the key"], options
assert {{"-oBatchMode=yes", "-oForwardAgent=no", "-oForwardX11=no", "-oConnectTimeout=5"}} == set(options[2:]), options
assert sys.stdin.read() == ""
with open(os.path.join(os.path.dirname(__file__), "running"), "a") as running:
    running.write(f"+{{node}}\\n")
if node == "refuses":
    sys.exit("ssh: connect to host refuses port 22: Connection refused\\x1b[2J")
if node.startswith("hangs"):
    os.execvp("sleep", ["sleep", "60"])
if node == "babbles":
    print("Welcome!" * 1000)
    sys.exit(0)
print("Welcome to", node, flush=True)
sys.exit(subprocess.run(["/bin/sh", "-c", command]).returncode)
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    program = tmp_path / "ssh"
    program.write_text(STRICT)
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def made(stopped=None, **access):
        given = {"arguments": ("-i", "/the key"), "fanout": 8, "allow": "^lo$"} | access
        return SshNodes(SshAccess(**given), NativeRunner(stopped=stopped))

    return made


def test_nodes_that_answer_and_nodes_that_do_not(make):
    heard = make().inventories(["n1", "refuses", "hangs", "babbles", "n2"], 8)
    assert heard.lines.keys() == {"n1", "n2"}
    facts = json.loads(heard.lines["n1"])
    assert (facts["schema"], facts["node"]) == (1, None)
    assert "lo" in [port["name"] for port in facts["interfaces"]]
    assert heard.reasons == {
        "refuses": "ssh: exit code 1: ssh: connect to host refuses port 22: Connection refused\ufffd[2J",
        "hangs": "did not answer by ssh within 6 s",
        "babbles": "ssh: exit code 0: no word of why",
    }


def test_what_was_heard_counts_when_the_time_is_over(make):
    heard = make(fanout=2).inventories(["n1", "hangs", "hangs2", "hangs3"], 6)
    assert heard.lines.keys() == {"n1"}
    assert set(heard.reasons.values()) == {"was not asked by ssh: did not end within 6 s (CVAGENT_INVENTORY_TIME_S)"}


def test_many_nodes_with_few_at_a_time(make, tmp_path):
    names = [f"n{number}" for number in range(20)]
    heard = make(fanout=3).inventories(names, 30)
    assert (heard.lines.keys(), heard.reasons) == (set(names), {})
    assert sorted((tmp_path / "running").read_text().split()) == sorted(f"+{name}" for name in names)


def test_a_stop_ends_it(make):
    stopped = Event()
    stopped.set()
    heard = make(stopped=stopped).inventories(["n1"], 30)
    assert heard.reasons == {"n1": "was not asked by ssh: ended because the agent stops"}


def test_only_what_nobody_can_reach_is_left_out(make):
    words = {"n1": {"allocated"}, "n2": {"idle", "drain"}, "n3": {"down", "not_responding"}, "n4": {"idle"}}
    nodes = {name: SlurmNode(name, frozenset(state), 0, 0, 50) for name, state in words.items()}
    answer = SshInventory(make(), 20).ask(nodes, ["n1", "n2", "n3"])
    assert answer.lines.keys() == {"n1", "n2"}
    assert (answer.reasons, answer.failed) == ({"n3": "not_responding"}, frozenset())
    assert SshInventory(make(arguments=()), 20).ask(nodes, ["n3"]).lines == {}


def test_the_command_is_plain_words_for_any_shell():
    words = inventory_command("^(eth|lo)$ 'x'")
    assert shlex.split(shlex.join(words)) == words
    assert words[:1] == ["env"]
    assert max(map(len, words)) < 100_000


def test_the_fan_out_needs_nothing_of_the_agent():
    text = (Path(__file__).parents[2] / "cvagent" / "clients" / "fanout.py").read_text()
    assert "cvagent." not in text.partition('"""')[2].partition('"""')[2].replace("CVAGENT_", "")
