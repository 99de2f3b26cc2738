"""The hook under every shell at hand: it leaves its note or not, says nothing, starts nothing, and exits 0."""

import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from cvagent.hook.site import Installation, SlurmConf, plan_install

NOBODY = 65534
SHELLS = {
    name: command for name, *command in (("dash", "dash"), ("bash", "bash", "--posix"), ("ash", "busybox", "ash"))
}
PROLOG = {"SLURM_JOB_ID": "17", "SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"}
LONG = "x" * 100_000
NO_IDS = [None, "", "0", "-1", "017", "1\n2", "../17", "17/..", "/etc/x", "1 2", "17x", "*", "$(touch x)", "`id`"]
NO_IDS += ["12345678901", LONG, "9" * 100_000, "\N{ARABIC-INDIC DIGIT ONE}", "1\udcff"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: another user, a file system of its own")


@pytest.fixture(params=SHELLS)
def shell(request):
    found = shutil.which(SHELLS[request.param][0])
    if found is None:
        pytest.skip(f"no {request.param} on this machine")
    return [found, *SHELLS[request.param][1:]]


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def script(tmp_path, spool):
    return copy(tmp_path, spool)


@pytest.fixture
def public():
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="cvagent-hook-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def copy(folder, spool, text=""):
    conf = folder / "slurm.conf"
    conf.write_text(text)
    changes = plan_install(SlurmConf(conf), Installation(folder / "hook", spool))
    path = folder / "installed"
    path.write_text(next(change.after for change in changes if change.path.name.startswith("hook")))
    path.chmod(0o755)
    return path


def run(shell, script, env, **how):
    """What it printed and its exit code. Its environment holds nothing else, not even PATH."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | how
    done = subprocess.run([*shell, script], env=env, check=False, timeout=20, **how)
    return done.returncode, done.stdout


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("context", ["prolog_slurmctld", "epilog_slurmctld", "prolog_slurmd", "epilog_slurmd"])
def test_it_leaves_an_empty_file(shell, script, spool, context):
    assert run(shell, script, PROLOG | {"SLURM_SCRIPT_CONTEXT": context}) == (0, b"")
    assert names(spool) == [f"17.{context}"]
    assert (spool / f"17.{context}").stat().st_size == 0


def test_a_second_run_changes_nothing(shell, script, spool):
    (spool / "17.prolog_slurmctld").write_text("kept")
    assert run(shell, script, PROLOG) == (0, b"")
    assert (spool / "17.prolog_slurmctld").read_text() == "kept"


@pytest.mark.parametrize("job_id", NO_IDS)
def test_an_id_that_is_none_leaves_no_note(shell, script, spool, job_id, tmp_path):
    before = names(tmp_path)
    env = PROLOG | {"SLURM_JOB_ID": job_id} if job_id is not None else {"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"}
    assert run(shell, script, env, cwd=tmp_path) == (0, b"")
    assert (names(spool), names(tmp_path)) == ([], before)


@pytest.mark.parametrize("context", [None, "", "prolog", "prolog_slurmctld\n", "../x", "x/y", LONG, "prolog_*"])
def test_a_context_that_is_none_leaves_no_note(shell, script, spool, context):
    env = PROLOG | {"SLURM_SCRIPT_CONTEXT": context} if context is not None else {"SLURM_JOB_ID": "17"}
    assert run(shell, script, env) == (0, b"")
    assert names(spool) == []


def test_the_environment_decides_nothing_else(shell, script, spool, tmp_path):
    hostile = dict.fromkeys(("spool", "site_hook", "note", "most", "IFS", "PS4", "HOME"), "/elsewhere\n;exit 7")
    hostile |= {
        "SLURM_JOB_NAME": LONG,
        "SLURM_JOB_COMMENT": "a\nb/../c\udcff",
        "ENV": "/dev/full",
        "PATH": "",
        "CDPATH": "..",
    }
    assert run(shell, script, PROLOG | hostile | {"PWD": LONG}, cwd=tmp_path) == (0, b"")
    assert names(spool) == ["17.prolog_slurmctld"]


def test_without_a_spool(shell, script, spool):
    spool.rmdir()
    assert run(shell, script, PROLOG) == (0, b"")
    spool.write_text("a file")
    assert run(shell, script, PROLOG) == (0, b"")
    assert spool.read_text() == "a file"


@pytest.mark.parametrize("kind", ["link", "dead link", "fifo", "folder"])
def test_what_has_the_name_already_is_left_alone(shell, script, spool, tmp_path, kind):
    note, outside = spool / "17.prolog_slurmctld", tmp_path / "outside"
    if kind == "link":
        outside.write_text("kept")
    make = {"fifo": os.mkfifo, "folder": os.mkdir}.get(kind, lambda path: path.symlink_to(outside))
    make(note)
    before = _unread(note.lstat())
    assert run(shell, script, PROLOG) == (0, b"")
    assert _unread(note.lstat()) == before
    assert not outside.exists() or outside.read_text() == "kept"


def test_beyond_a_thousand_notes_it_marks_the_spool_full_and_stops(shell, script, spool):
    for number in range(1000, 2000):
        (spool / f"{number}.prolog_slurmctld").touch()
    for job_id in ("17", "18", "19"):
        assert run(shell, script, PROLOG | {"SLURM_JOB_ID": job_id}) == (0, b"")
    assert len(names(spool)) == 1001
    assert (spool / "full").stat().st_size == 0


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_with_a_closed_stream(shell, script, spool, closed):
    assert run(shell, script, PROLOG, preexec_fn=lambda: os.close(closed))[0] == 0
    assert [(path.name, path.stat().st_size) for path in spool.iterdir()] == [("17.prolog_slurmctld", 0)]


@as_root
def test_it_starts_no_process(shell, public):
    spool = public / "spool"
    spool.mkdir()
    spool.chmod(0o777)
    script = copy(public, spool)

    def allow_none():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

    forks = public / "forks"
    forks.write_text("( : ) && exit 3\n")
    # Asked of dash alone: bash tries for 15 s.
    assert run(["dash"], forks, {}, preexec_fn=allow_none)[0] != 3, "the limit does not hold"
    assert run(shell, script, PROLOG, preexec_fn=allow_none) == (0, b"")
    assert names(spool) == ["17.prolog_slurmctld"]


@as_root
def test_with_no_right_to_the_spool(shell, public):
    spool = public / "spool"
    spool.mkdir(0o700)
    script = copy(public, spool)
    assert run(shell, script, PROLOG, user=NOBODY) == (0, b"")
    assert names(spool) == []


@as_root
@pytest.mark.parametrize("options", ["size=64k,nr_inodes=2", "ro"])
def test_on_a_full_or_read_only_file_system(shell, script, spool, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", spool], check=True)
    try:
        if options != "ro":
            (spool / "1.prolog_slurmctld").touch()
        assert run(shell, script, PROLOG) == (0, b"")
        assert "17.prolog_slurmctld" not in names(spool)
    finally:
        subprocess.run(["umount", spool], check=True)


def test_killed_at_any_moment_it_leaves_a_whole_note_or_none(shell, script, spool):
    for number in range(1, 60):
        env = PROLOG | {"SLURM_JOB_ID": str(number)}
        process = subprocess.Popen([*shell, script], env=env, stdin=subprocess.DEVNULL)
        hashlib.sha256(b"x" * number * 50_000)  # so that the kill comes ever later
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) in {0, -signal.SIGKILL}
    allowed = {f"{number}.prolog_slurmctld" for number in range(1, 60)}
    assert set(names(spool)) <= allowed
    assert all(stat.S_ISREG(path.lstat().st_mode) and path.stat().st_size == 0 for path in spool.iterdir())


@pytest.mark.parametrize("exit_code", [0, 3, 255])
def test_a_hook_of_the_site_runs_as_if_it_were_alone(shell, spool, tmp_path, exit_code):
    site = tmp_path / "site hook"
    site.write_text(f'#!/bin/sh\necho "$SLURM_JOB_ID $1 $-"; umask; echo oops >&2; exit {exit_code}\n')
    site.chmod(0o755)
    alone = run([], site, PROLOG, cwd=tmp_path)
    ours = run(shell, copy(tmp_path, spool, f'PrologSlurmctld="{site}"\n'), PROLOG, cwd=tmp_path)
    assert ours == alone
    assert ours[0] == exit_code
    assert names(spool) == ["17.prolog_slurmctld"]


def test_a_hook_of_the_site_that_is_killed_is_seen_killed(shell, spool, tmp_path):
    site = tmp_path / "site"
    site.write_text("#!/bin/sh\nkill -9 $$\n")
    site.chmod(0o755)
    spool.rmdir()
    assert run(shell, copy(tmp_path, spool, f"PrologSlurmctld={site}\n"), PROLOG)[0] == -signal.SIGKILL


def test_a_hook_of_the_site_that_is_gone_fails_as_it_would_alone(shell, spool, tmp_path):
    ours = copy(tmp_path, spool, f"PrologSlurmctld={tmp_path}/gone\n")
    assert run(shell, ours, PROLOG, stderr=subprocess.DEVNULL)[0] == 127


def _unread(found):
    """What a look at a file does not change."""
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
