"""Job names, which may hold any byte but NUL: nobody but their own job is touched by them."""

import re

import pytest
from agent import documents, told_of

MARK = b"\x1e0123456789abcdef"
FORGED = "999999"

SQUEUE = b"\x1f".join((FORGED.encode(), *b"RUNNING 1700000000 1700000001 1800000000 0 batch node[1-4] forged".split()))
SACCT = MARK.join((FORGED.encode(), *b"COMPLETED 1700000000 1700000001 1700000009 batch node1 forged".split(), b"\n"))

NAMES = {
    "newline": b"first\nsecond",
    "newlines alone": b"\n\n",
    "pipe": b"a|b||c",
    "quotes": b'it\'s a "quote"`',
    "control characters": bytes(range(1, 32)) + b"\x7f",
    "terminal": b"\x1b[31mred\x1b[0m\x07",
    "invalid UTF-8": b"caf\xe9 \xff\xfe \xed\xa0\x80",
    "long": b"n" * 1000,  # Slurm takes 1,024 bytes
    "quoted at accounting's limit": b"n" * 253 + b'"""',
    "long and wide": "\u00e9".encode() * 500,
    "emoji": "\U0001f680 \u6f22\u5b57 \u00fc\u00f1\u00ef".encode(),
    "shell": b"$(x); `reboot` && rm -rf / #",
    "group": b"@group",
    "format": b"%s %n {0} {{jinja}} <script>alert(1)</script>",
    "space": b" ",
    "dash": b"-",
    "separators": b"\x1f\x1e\x1f\x1e",
    "squeue's record": b"x" + MARK + b"\n" + SQUEUE + MARK + b"\n",
    "sacct's record": b"x" + MARK + b"\n" + SACCT,
    "squeue's line": b"x\n" + SQUEUE,
    "sacct's line": b"x\n" + FORGED.encode() + b"|COMPLETED|1700000000|1700000001|1700000009|batch|node1|forged",
}


def cleaned(name: bytes) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", name.decode(errors="replace"))


def submit_all(lab, script):
    return {lab.submit(b"--job-name=" + name, script=script): name for name in NAMES.values()}


def names_of(stand_in, jobs):
    return {job: stand_in.jobs[f"{job}@lab"]["name"] for job in jobs}


@pytest.mark.timeout(180)
def test_names_of_jobs_that_were_seen_running(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in).start()
    jobs = submit_all(lab, "sleep 300")
    wanted = {job: f"{cleaned(name)}@batch" for job, name in jobs.items()}
    assert stand_in.wait_for(lambda: all(f"{job}@lab" in stand_in.jobs for job in jobs), 60)
    assert names_of(stand_in, jobs) == wanted
    lab.slurm("scancel", *jobs)
    ended(lab, agent, jobs)
    # Accounting tells another name, which does not take the place of the right one.
    assert names_of(stand_in, jobs) == wanted
    assert {document["state"] for document in told_of(stand_in, *jobs).values()} == {"JOB_STATE_CANCELLED"}
    assert len(told_of(stand_in, *jobs)) == len(jobs)
    assert told_of(stand_in, FORGED) == {}
    assert agent.rounds("skipped") == 0


@pytest.mark.timeout(180)
def test_names_of_jobs_that_only_accounting_knows(lab, make_agent, stand_in):
    jobs = submit_all(lab, "exit 3")
    agent = make_agent(lab, stand_in, job_interval_s=5)
    for job in jobs:
        lab.wait_for_end(job)
    agent.start()
    ended(lab, agent, jobs)
    assert names_of(stand_in, jobs) == {job: f"{accounted(lab, job)}@batch" for job in jobs}
    assert {document["state"] for document in told_of(stand_in, *jobs).values()} == {"JOB_STATE_FAILED"}
    assert told_of(stand_in, FORGED) == {}
    assert agent.rounds("skipped") == 0


def ended(lab, agent, jobs):
    for job in jobs:
        lab.wait_for_end(job)
    agent.settle()


def accounted(lab, job):
    """One field of one job: nothing can be forged there."""
    said = lab.slurm("sacct", "-n", "-X", "-P", "-j", job, "-o", "JobName")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", said.removesuffix("\n"))


def test_a_job_named_like_one_of_the_agents_own_is_left_out(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in).start()
    left, told = (lab.submit(f"--job-name={name}", script="true") for name in ("cv-probe", "not-cv-probe"))
    lab.wait_for_end(left)
    assert agent.told(told) == ["COMPLETED"]
    assert told_of(stand_in, left) == {}
    assert list(documents(lab, left)) == [f"{left}@lab"]
