"""The files of the repository, for tests that read them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NOT_OURS = {".git", ".venv", ".tools", "__pycache__", "build", "dist"}


def tracked():
    """Files that git tracks; in an unpacked archive, which has no git, all that are no build product."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not _NOT_OURS & set(path.parts)]
    return sorted(path for path in found if path.is_file())


def texts():
    """Path below the root, and text, of each file that is text."""
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT).as_posix(), content.decode("utf-8", "replace")


def modules(folder):
    """Path below the root, and text, of each Python file in a folder, tracked or not."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text()
