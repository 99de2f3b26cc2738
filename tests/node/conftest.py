"""Runs the inventory as a node does: a process of its own, with the tools the test gives it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cvagent" / "node" / "inventory.py"
LIMIT_S = 20


def _sysfs():
    spec = importlib.util.spec_from_file_location("sysfs", ROOT / "tests" / "fixtures" / "sysfs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sysfs():
    """The module that builds trees."""
    return _sysfs()


@pytest.fixture
def tools(tmp_path):
    """A folder of commands; each is a shell script that the test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def add(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    add("lldpctl", "exit 1")
    add.folder = folder
    return add


@pytest.fixture
def inventory(tools):
    """Runs the script and reads its line."""

    def run(root, *options, source=None, python=sys.executable, env=()):
        script = [str(SCRIPT)] if source is None else ["-"]
        done = subprocess.run(
            [python, *script, f"--root={root}", *options],
            input=source,
            env={"PATH": f"{tools.folder}:{os.environ['PATH']}", **dict(env)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1
        return json.loads(done.stdout)

    return run
