"""`cvagent hook` as a person runs it: it shows, asks, writes in one step, keeps a backup, and says what is left."""

import os
import re
import stat
import time

import pytest
from click.testing import CliRunner

from cvagent.cli import main

CONF = "ClusterName=a\nSlurmUser=root\nPrologSlurmctld=/bin/true # ours\n"


class Place:
    """A site: slurm.conf, a scontrol that says what the test wants, and where the hook goes."""

    def __init__(self, folder):
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.script = folder / "libexec" / "cvagent-hook"
        self.spool = folder / "spool"
        self.conf.write_text(CONF)
        self.says("slurm 22.05.8", "")

    def says(self, version, config):
        """What scontrol prints."""
        scontrol = self.folder / "scontrol"
        scontrol.write_text(f"#!/bin/sh\ncase $1 in\n--version) echo '{version}' ;;\n*) echo '{config}' ;;\nesac\n")
        scontrol.chmod(0o755)

    def hook(self, command, *options, answer=""):
        given = {
            "--slurm-conf": self.conf,
            "--script": self.script,
            "--spool": self.spool,
            "--slurm-bin-dir": self.folder,
        }
        words = [str(word) for pair in given.items() for word in pair]
        return CliRunner().invoke(main, ["hook", command, *words, *options], input=answer)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CVAGENT_")]:
        monkeypatch.delenv(name)
    return Place(tmp_path)


def test_install_shows_a_diff_and_asks(place):
    done = place.hook("install", answer="n\n")
    assert done.exit_code == 1
    assert re.findall(r"^[-+][^-+].*", done.output, re.MULTILINE) == [
        "-PrologSlurmctld=/bin/true # ours",
        f"+PrologSlurmctld={place.script}-PrologSlurmctld # ours",
        f"+EpilogSlurmctld={place.script}",
    ]
    assert place.conf.read_text() == CONF
    assert not place.script.parent.exists()
    assert not place.spool.exists()


def test_install_writes_keeps_a_backup_and_says_what_is_left(place):
    place.conf.chmod(0o640)
    done = place.hook("install", answer="y\n")
    assert done.exit_code == 0, done.output
    assert "scontrol reconfigure" in done.output
    assert f"CVAGENT_HOOK_SPOOL={place.spool}" in done.output
    backup = next(place.folder.glob("slurm.conf.cvagent-backup-*"))
    assert backup.read_text() == CONF
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place.conf, backup)} == {0o640}
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.script.parent.iterdir()} == {0o755}
    assert stat.S_IMODE(place.spool.stat().st_mode) == 0o700
    assert not list(place.folder.glob(".*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root: other owners")
def test_owner_group_and_rights_are_as_they_should_be(place):
    os.chown(place.conf, 1234, 4321)
    assert place.hook("install", "--yes", "--user", "1234", "--group", "4321").exit_code == 0
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (place.conf, place.spool)] == [(1234, 4321)] * 2
    assert stat.S_IMODE(place.spool.stat().st_mode) == 0o770


def test_a_link_stays_a_link(place):
    target = place.folder / "shared.conf"
    place.conf.rename(target)
    place.conf.symlink_to(target)
    assert place.hook("install", "--yes").exit_code == 0
    assert place.conf.is_symlink()
    assert "cvagent-hook" in target.read_text()


def test_a_second_install_changes_nothing(place):
    place.hook("install", "--yes")
    before = {path: path.stat().st_mtime_ns for path in place.folder.rglob("*")}
    done = place.hook("install")
    assert (done.exit_code, done.output.startswith("Nothing to change")) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in place.folder.rglob("*")} == before


def test_a_release_that_takes_several_lines_gets_one_more(place):
    place.says("slurm 24.11.5", "")
    place.hook("install", "--yes")
    assert place.conf.read_text() == CONF + f"PrologSlurmctld={place.script}\nEpilogSlurmctld={place.script}\n"


@pytest.mark.parametrize(
    ("version", "config", "restart"),
    [
        ("22.05.8", "PrologSlurmctld = /bin/true\nEpilogSlurmctld = (null)", True),
        ("22.05.8", "PrologSlurmctld         = /bin/true\nEpilogSlurmctld         = /bin/true", False),
        ("24.11.5", "PrologSlurmctld = (null)\nEpilogSlurmctld = (null)", False),
        ("of no number", "PrologSlurmctld = (null)", True),
    ],
)
def test_a_slurmctld_that_must_be_restarted(place, version, config, restart):
    place.says(f"slurm {version}", config)
    said = place.hook("install", "--yes").output
    assert ("must be restarted" in said, "scontrol reconfigure" in said) == (restart, not restart)


def test_several_controllers_are_told(place):
    place.conf.write_text(f"{CONF}SlurmctldHost=a\nSlurmctldHost=b\n")
    assert "Several SlurmctldHost" in place.hook("install", "--yes").output


def test_uninstall_keeps_the_scripts_until_slurmctld_runs_them_no_more(place):
    place.hook("install", "--yes")
    place.says("slurm 22.05.8", f"PrologSlurmctld = {place.script}-PrologSlurmctld")
    done = place.hook("uninstall", "--yes")
    assert (done.exit_code, place.conf.read_text()) == (0, CONF)
    assert "scontrol reconfigure" in done.output
    assert len(list(place.script.parent.iterdir())) == 2
    place.says("slurm 22.05.8", "PrologSlurmctld = /bin/true")
    assert place.hook("uninstall", "--yes").exit_code == 0
    assert list(place.script.parent.iterdir()) == []
    assert place.hook("uninstall", "--yes").output.startswith("Nothing to change")


def test_uninstall_asks(place):
    place.hook("install", "--yes")
    before = place.conf.read_text()
    assert place.hook("uninstall", answer="n\n").exit_code == 1
    assert place.conf.read_text() == before


def test_status_says_what_is_wrong(place):
    done = place.hook("status")
    assert done.exit_code == 1
    assert "PrologSlurmctld does not name the hook" in done.output
    assert "cvagent hook install makes it" in done.output


def test_status_when_all_is_well(place):
    place.hook("install", "--yes")
    place.says("slurm 22.05.8", f"PrologSlurmctld = {place.script}-PrologSlurmctld EpilogSlurmctld = {place.script}")
    done = place.hook("status")
    assert (done.exit_code, "FAIL" in done.output) == (0, False), done.output
    assert "whether it hears is not known" in done.output


def test_status_says_what_slurmctld_has_not_read(place):
    place.hook("install", "--yes")
    done = place.hook("status")
    assert (done.exit_code, "scontrol reconfigure" in done.output) == (1, True)


def test_status_says_that_notes_wait(place):
    place.hook("install", "--yes")
    note = place.spool / "7.prolog_slurmctld"
    note.touch()
    os.utime(note, (time.time() - 60,) * 2)
    assert "no agent watches" in place.hook("status").output


def test_status_says_when_the_spool_is_open_to_everybody(place):
    place.hook("install", "--yes")
    place.spool.chmod(0o777)
    assert "chmod o=" in place.hook("status").output


def test_status_says_that_a_script_is_gone(place):
    place.hook("install", "--yes")
    place.script.unlink()
    assert "jobs cannot start" in place.hook("status").output


@pytest.mark.parametrize(("option", "value"), [("--spool", "relative"), ("--spool", "/a b"), ("--script", "/a'b")])
def test_paths_that_slurm_or_a_shell_would_read_otherwise_are_refused(place, option, value):
    done = place.hook("install", "--yes", option, value)
    assert (done.exit_code, place.conf.read_text()) == (1, CONF)
    assert "must be an absolute path" in done.output


def test_an_unknown_user_is_refused(place):
    assert "no user nosuchuser" in place.hook("install", "--yes", "--user", "nosuchuser").output


def test_without_slurm_conf(place):
    place.conf.unlink()
    for command in ("install", "uninstall", "status"):
        assert "cannot be read" in place.hook(command).output
