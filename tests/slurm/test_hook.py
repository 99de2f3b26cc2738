"""The hook in a real slurmctld: it takes the installed slurm.conf, jobs start as before, and ends are known at once."""

import datetime as dt
import math
import os
import re
import subprocess
import sys

import pytest
import requests
from slurm_lab import ROOT
from waiting import wait_until

SECONDS = 2
JOBS = 100
SHARE = 0.99
TRIES = 3
NOTES, NOTES_MIB, READY_S = 100_000, 20, 20
# Load for each processor above which the machine, not the agent, is what is measured.
BUSY = 1.5
BEGINS = re.compile(r"^\[(.{23})\] (?:sched/backfill|sched):.* (?:Allocate|Started) JobId=(?:\d+_\d+\((\d+)\)|(\d+)) ")
ENDS = re.compile(r"^\[(.{23})\] _job_complete: JobId=(?:\d+_\d+\((\d+)\)|(\d+)) done")


@pytest.fixture
def site(make_lab):
    return make_lab(nodes=4, cpus=64)


def hook(lab, command, *options):
    """Runs `cvagent hook` as a person on slurmctld's machine would."""
    place = ["--slurm-conf", lab.folder / "etc" / "slurm.conf", "--slurm-bin-dir", lab.bin_dir]
    place += ["--script", lab.folder / "libexec" / "cvagent-hook", "--spool", lab.folder / "spool"]
    words = [sys.executable, "-m", "cvagent", "hook", command, *place, *options]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert command == "status" or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(lab, *, restart=False):
    """In a lab that started with hooks, reading slurm.conf is enough."""
    said = hook(lab, "install", "--yes")
    assert ("must be restarted" if restart else "scontrol reconfigure") in said
    if restart:
        lab.daemon("restart", "slurmctld")
    else:
        lab.slurm("scontrol", "reconfigure")
    wait_until(lambda: "FAIL" not in hook(lab, "status"), 10)


def _release(lab):
    """Such as (22, 5)."""
    return tuple(int(part) for part in re.findall(r"\d+", lab.slurm("sinfo", "--version"))[:2])


def without_hooks(lab):
    """The lab's own slurm.conf names hooks: this is the site that has none."""
    conf = lab.folder / "etc" / "slurm.conf"
    conf.write_text(re.sub(r"(?mi)^(pro|epi)logslurmctld=.*\n", "", conf.read_text()))


def moments(text, pattern):
    """When what slurmctld's log tells of happened, by job id."""
    found = (match for match in map(pattern.match, text.splitlines()) if match)
    return {match[2] or match[3]: dt.datetime.fromisoformat(match[1]).timestamp() for match in found}


def lags(writes, happened, *, ended):
    """Seconds from each event to the first document that tells of it, sorted; infinity where none does."""
    told = {}
    for write in writes:
        if ("end_time" in write.document) == ended:
            told.setdefault(write.key.partition("@")[0], write.at)
    return sorted(told.get(job, math.inf) - at for job, at in happened.items())


def test_a_burst_is_known_within_two_seconds(site, stand_in, make_agent):
    install(site)
    agent = make_agent(site, stand_in, job_interval_s=600, hook_spool=site.folder / "spool").start()
    wait_until(lambda: agent.rounds() > 0, 20)
    # Other work on this machine may hold up one burst, slurmctld's own part of it first of all.
    bursts = [burst(site, stand_in)]
    while not all(map(in_time, bursts[-1])) and len(bursts) < TRIES:
        bursts.append(burst(site, stand_in))
    if not all(map(in_time, bursts[-1])) and os.getloadavg()[0] > BUSY * os.cpu_count():
        pytest.skip(f"this machine has too much to do to count seconds: load {os.getloadavg()[0]:.0f}")
    assert all(map(in_time, bursts[-1])), bursts
    # Accounting may tell of an end before its note is left, and slurmctld may run a hook twice.
    left = 2 * JOBS * len(bursts)
    noted = wait_until(lambda: (seen := agent.metric("cvagent_notes_total")) >= left and seen, 20)
    assert noted <= 1.05 * left
    assert agent.rounds() <= 12 * len(bursts)
    status = agent.command("hook", "status", "--slurm-conf", str(site.folder / "etc" / "slurm.conf"))
    assert f"has heard of {noted:.0f} notes" in status.stdout


def burst(lab, stand_in):
    """Seconds from each start and from each end to the document that tells of it."""
    log = lab.folder / "log" / "slurmctld.log"
    read_from, told_from = log.stat().st_size, len(stand_in.history)
    ended = sum("end_time" in job for job in dict(stand_in.jobs).values()) + JOBS
    lab.submit(f"--array=1-{JOBS}", "--ntasks=1", "--mem=1", script="sleep 5")
    wait_until(lambda: sum("end_time" in job for job in dict(stand_in.jobs).values()) == ended, 60)
    text, writes = log.read_bytes()[read_from:].decode(), stand_in.history[told_from:]
    return lags(writes, moments(text, BEGINS), ended=False), lags(writes, moments(text, ENDS), ended=True)


def in_time(seconds):
    assert len(seconds) == JOBS
    return sum(lag <= SECONDS for lag in seconds) >= SHARE * JOBS


def test_a_hook_of_the_site_still_runs_and_its_exit_code_counts(site):
    conf = site.folder / "etc" / "slurm.conf"
    before = conf.read_bytes()
    ran = site.folder / "ran"
    site.hook("prologslurmctld", f'#!/bin/sh\necho "$SLURM_JOB_ID" >>{ran}\n[ "$SLURM_JOB_PARTITION" = batch ]\n')
    install(site)
    good, bad = site.submit(script="true"), site.submit("-p", "debug", "--no-requeue", script="true")
    assert site.wait_for_end(good)[0].state == "COMPLETED"
    assert site.wait_for_end(bad)[0].state == "CANCELLED"
    assert sorted(ran.read_text().split()) == sorted([good, bad])
    assert len(list((site.folder / "spool").iterdir())) == 4
    hook(site, "uninstall", "--yes")
    assert conf.read_bytes() == before
    # slurmctld has not read it: the scripts must still be there.
    assert site.wait_for_end(site.submit(script="true"))[0].state == "COMPLETED"
    site.slurm("scontrol", "reconfigure")
    wait_until(lambda: "Removed" in hook(site, "uninstall", "--yes"), 10)
    assert site.wait_for_end(site.submit(script="true"))[0].state == "COMPLETED"


def test_in_a_slurm_conf_without_hooks(site):
    without_hooks(site)
    site.daemon("restart", "slurmctld")
    conf = site.folder / "etc" / "slurm.conf"
    before = conf.read_bytes()
    install(site, restart=_release(site) < (24, 11))
    job = site.submit(script="true")
    assert site.wait_for_end(job)[0].state == "COMPLETED"
    spool = site.folder / "spool"
    wait_until(lambda: len(list(spool.iterdir())) == 2, 10)
    assert {path.name for path in spool.iterdir()} == {f"{job}.prolog_slurmctld", f"{job}.epilog_slurmctld"}
    hook(site, "uninstall", "--yes")
    assert conf.read_bytes() == before
    site.daemon("restart", "slurmctld")
    assert site.wait_for_end(site.submit(script="true"))[0].state == "COMPLETED"


@pytest.mark.timeout(180)
def test_a_hundred_thousand_notes_at_the_start_hold_nobody_up(lab, stand_in, make_agent, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    quiet = make_agent(lab, stand_in, hook_spool=spool).start()
    wait_until(lambda: quiet.readyz()[0] == requests.codes.ok, READY_S)
    quiet.settle(rounds=3)
    usual = quiet.memory()
    quiet.stop()
    for job in range(1, NOTES + 1):
        (spool / f"{job}.prolog_slurmctld").touch()
    swamped = make_agent(lab, stand_in, hook_spool=spool).start()
    most = [swamped.memory()]
    wait_until(lambda: most.append(swamped.memory()) or swamped.readyz()[0] == requests.codes.ok, READY_S)
    wait_until(lambda: most.append(swamped.memory()) or swamped.metric("cvagent_notes_total") == NOTES, 60)
    swamped.settle(rounds=3)
    assert not list(spool.iterdir())
    assert max(most) <= usual + NOTES_MIB * 1024**2
    job = lab.submit(script="true")
    assert swamped.told(job) == ["COMPLETED"]


@pytest.mark.parametrize("trouble", ["no spool", "full spool", "no agent"])
def test_jobs_run_whatever_is_wrong_with_the_spool(site, trouble):
    install(site)
    spool = site.folder / "spool"
    if trouble == "no spool":
        spool.rmdir()
    elif trouble == "full spool":
        (spool / "full").touch()
    assert site.wait_for_end(site.submit(script="true"))[0].state == "COMPLETED"
