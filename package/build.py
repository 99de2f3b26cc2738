"""Builds two Debian packages, their RPMs and a single file into dist/, from the lock: one commit, the same bytes.

    package/build.py [FOLDER [PYTHON...]]

One tree serves several Pythons, those of PYTHONS when none are named: what is compiled carries the Python's version in
its name, and all else, but for what describes a wheel, is the same for each. That it is, is checked.
"""

import filecmp
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cvagent

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.prefix) / "bin"
STAGE = ROOT / "build" / "package"
TREE = STAGE / "tree"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# By the kernel's word for a machine: Debian's, and that of wheels. They need the C library of RHEL 8 or later.
MACHINES = {"x86_64": ("amd64", "x86_64-manylinux_2_28"), "aarch64": ("arm64", "aarch64-manylinux_2_28")}
# How a library came here: no two builds agree on it.
_NOTES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json")


def build(folder: Path, pythons: Sequence[str]) -> None:
    """Build everything into a folder."""
    debian, wheels = MACHINES[platform.machine()]
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _run("git", "log", "-1", "--format=%ct")
    env = os.environ | {
        "SOURCE_DATE_EPOCH": epoch.strip(),
        "CVAGENT_VERSION": cvagent.__version__,
        "CVAGENT_ARCH": debian,
        "CVAGENT_PYTHON_FIRST": pythons[0],
        "CVAGENT_PYTHON_AFTER": f"3.{int(pythons[-1].removeprefix('3.')) + 1}",
    }
    shutil.rmtree(STAGE, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for python in pythons:
        _overlay(_libraries(python, wheels, env), TREE / "site-packages")
    _overlay(_program(env), TREE / "site-packages")
    _make_environment(TREE, pythons)
    shutil.copytree(ROOT / "docs", STAGE / "docs")
    _make_even(STAGE, int(epoch))
    for name in ("cvagent", "cvagent-node-report"):
        for form in ("deb", "rpm"):
            _run(BIN / "nfpm", "package", "-f", f"package/{name}.yaml", "-p", form, "-t", folder, env=env)
    single = folder / f"cvagent-{cvagent.__version__}-{platform.machine()}.pyz"
    site = str(TREE / "site-packages")
    _run(BIN / "shiv", "--site-packages", site, "-e", "cvagent.cli:main", "--preamble", "package/single.py",
         "-p", "/usr/bin/env python3", "-o", single, env=env)  # fmt: skip


def _libraries(python: str, wheels: str, env: dict[str, str]) -> Path:
    target = STAGE / python
    _install(target, "--python-version", python, "--python-platform", wheels, "--no-build-isolation",
             "--only-binary", ":all:", "--no-binary", "sdnotify",
             "--require-hashes", "-r", "requirements/run.txt", env=env)  # fmt: skip
    return target


def _program(env: dict[str, str]) -> Path:
    target = STAGE / "program"
    _run(_uv(), "build", "-q", "--wheel", "--no-build-isolation", "--python", BIN / "python", "-o", STAGE, env=env)
    _install(target, "--no-deps", *STAGE.glob("*.whl"), env=env)
    return target


def _install(target: Path, *arguments: str | Path, env: dict[str, str]) -> None:
    _run(_uv(), "pip", "install", "-q", "--link-mode", "copy", "--python", BIN / "python", "--target", target,
         *arguments, env=env)  # fmt: skip
    shutil.rmtree(target / "bin", ignore_errors=True)
    for path in [target / ".lock", *(path for name in _NOTES for path in target.glob(f"*.dist-info/{name}"))]:
        path.unlink(missing_ok=True)


def _overlay(source: Path, target: Path) -> None:
    """Copy a tree onto another. SystemExit when a file of both differs: then one tree cannot serve both Pythons."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
        elif not there.exists():
            shutil.copy(path, there)
        elif ".dist-info/" not in str(path) and not filecmp.cmp(path, there, shallow=False):
            sys.exit(f"{path.relative_to(STAGE)} is not the same for every Python: no one tree serves them all")


def _make_environment(tree: Path, pythons: Sequence[str]) -> None:
    """What makes a tree a virtual environment of each Python."""
    (tree / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for python in pythons:
        folder = tree / "lib" / f"python{python}"
        folder.mkdir(parents=True)
        (folder / "site-packages").symlink_to("../../site-packages")


def _make_even(stage: Path, epoch: int) -> None:
    """Rights and times that do not depend on who builds, and when."""
    for path in stage.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _uv() -> str | Path:
    return shutil.which("uv") or ROOT / ".tools" / "bin" / "uv"


def _run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command in the root of the project; what it prints. SystemExit, with its own words, when it fails."""
    done = subprocess.run([*map(str, command)], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} failed: {done.stderr or done.stdout}")
    return done.stdout


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist").resolve(), sys.argv[2:] or PYTHONS)
