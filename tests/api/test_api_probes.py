import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from cvagent.errors import SourceError
from cvagent.model import Accepted, Change, Deferred, Plan, Refused, State

SINK = "cloudvision_jobs"


def readyz(server):
    answer = requests.get(f"{server.url}/readyz", timeout=5)
    body = answer.json()
    assert body["ready"] == (answer.status_code == 200)
    return body


def scraped(server):
    answer = requests.get(f"{server.url}/metrics", timeout=5)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_healthz_is_ok_whatever_the_rest_says(lab):
    server = lab.serve()
    lab.board.round_skipped("jobs", SourceError("squeue: no answer"), lab.clock.now())
    lab.outbox.close()
    answer = requests.get(f"{server.url}/healthz", timeout=5)
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_each_answer_is_a_sign_that_a_delivery_goes_on(lab):
    began = time.monotonic()
    lab.board.delivered(SINK, Deferred("busy", everything=True), lab.clock.now())
    assert began <= lab.board.signs[SINK] <= time.monotonic()
    assert lab.board.signs["jobs"] == 0


def test_not_ready_before_the_first_round(lab):
    body = readyz(lab.serve())
    assert body["reasons"] == ["jobs: no round has succeeded yet"]
    assert body["flows"]["jobs"]["last_success"] is None
    assert body["flows"]["jobs"]["age_s"] is None


def test_ready_after_a_round_although_nothing_was_ever_delivered(lab):
    server = lab.serve()
    lab.record()
    lab.clock.time += 30
    body = readyz(server)
    assert body["ready"]
    assert body["flows"]["jobs"]["last_success"] == "2026-03-01T11:00:00Z"
    assert body["flows"]["jobs"]["age_s"] == 30
    assert body["sinks"][SINK]["last_success"] is None


def test_one_skipped_round_is_shown_and_forgiven_until_the_flow_is_stale(lab):
    server = lab.serve()
    lab.record()
    lab.board.round_skipped("jobs", SourceError("squeue: no answer"), lab.clock.now())
    lab.clock.time += 110
    assert readyz(server)["ready"]
    assert readyz(server)["flows"]["jobs"]["error"] == "squeue: no answer"
    lab.clock.time += 30
    assert readyz(server)["reasons"] == ["jobs: no round has succeeded for 2 min: squeue: no answer"]
    lab.record()
    body = readyz(server)
    assert body["ready"]
    assert body["flows"]["jobs"]["error"] is None


def test_text_of_a_foreign_error_is_not_shown(lab):
    server = lab.serve()
    lab.board.round_skipped("jobs", ValueError("https://user:secret@host"), lab.clock.now())
    assert readyz(server)["flows"]["jobs"]["error"] == "unexpected ValueError: see the log"


def test_paused_sink_is_not_ready_until_it_answers(lab, job):
    server = lab.serve()
    lab.record(job(1))
    until = lab.clock.now() + 20
    lab.answer(Deferred("503: maintenance", everything=True))
    lab.board.paused(SINK, "503: maintenance", until, lab.clock.now())
    body = readyz(server)
    assert body["reasons"] == [f"{SINK}: waits until 2026-03-01 11:00:20 UTC: 503: maintenance"]
    assert body["sinks"][SINK]["paused_until"] == "2026-03-01T11:00:20Z"
    assert body["sinks"][SINK]["pending"] == 1
    assert scraped(server)["cvagent_sink_paused", SINK] == 1
    lab.clock.time = until
    assert readyz(server)["reasons"] == [f"{SINK}: is tried again: 503: maintenance"]
    lab.answer(Accepted())
    body = readyz(server)
    assert body["ready"]
    assert body["sinks"][SINK]["error"] is None
    assert scraped(server)["cvagent_sink_paused", SINK] == 0


def test_a_pause_ends_with_its_time_when_nothing_waits(lab):
    server = lab.serve()
    lab.record()
    lab.board.paused(SINK, "503", lab.clock.now() + 5, lab.clock.now())
    lab.clock.time += 6
    assert readyz(server)["ready"]


def test_entry_that_waits_too_long_makes_its_sink_not_ready(lab, job):
    server = lab.serve()
    lab.record(job(1))
    lab.answer(Deferred("409: busy"), retry_in_s=30)
    assert readyz(server)["ready"]
    lab.clock.time += 301
    lab.record()
    assert readyz(server)["reasons"] == [f"{SINK}: 1 pending, the oldest for 5 min: 409: busy"]


def test_what_is_set_aside_is_shown_and_leaves_the_agent_ready(lab, job):
    server = lab.serve()
    lab.record(job(1))
    lab.answer(Refused("400: no such location"))
    body = readyz(server)
    assert body["ready"]
    assert body["sinks"][SINK]["set_aside"] == 1
    assert body["sinks"][SINK]["error"] == "400: no such location"


def test_refused_plan_and_detail_are_told(lab, job):
    server = lab.serve()
    ended = Change(
        job(1), job(1, state=State.FAILED, ended_at=1_772_362_800, inferred=True), "Slurm no longer shows it"
    )
    lab.board.round_done("jobs", 0.1, Plan(refused=[ended], refusal="1 end withheld"), lab.clock.now())
    lab.board.set_detail("jobs", "Slurm keeps no accounting")
    body = readyz(server)
    assert body["ready"]
    assert body["flows"]["jobs"]["detail"] == "1 end withheld; Slurm keeps no accounting"
    assert scraped(server)["cvagent_refused_changes", "jobs"] == 1
    lab.board.set_detail("jobs", None)
    lab.record()
    assert readyz(server)["flows"]["jobs"]["detail"] is None


def test_store_that_does_not_answer_is_a_reason_and_breaks_no_scrape(lab, broken):
    lab.outbox = broken
    server = lab.serve()
    lab.board.round_done("jobs", 0.1, Plan(), lab.clock.now())
    body = readyz(server)
    assert body["reasons"] == ["the store does not answer: gone (CVAGENT_STORE_URL)"]
    assert body["sinks"][SINK]["pending"] is None
    samples = scraped(server)
    assert samples["cvagent_rounds_total", "done", "jobs"] == 1
    assert ("cvagent_outbox_pending", SINK) not in samples


def test_metrics_count_what_happened(lab, job):
    server = lab.serve()
    lab.record(job(1), job(2), job(3))
    lab.clock.time += 40
    lab.answer(Accepted(), key="1@lab")
    lab.answer(Refused("400"), key="2@lab")
    lab.answer(Deferred("409"), key="3@lab")
    lab.board.round_skipped("jobs", SourceError("squeue: no answer"), lab.clock.now())
    lab.board.command_done("/opt/slurm/bin/squeue", 0.2, ok=True)
    lab.board.command_done("squeue", 20.0, ok=False)
    samples = scraped(server)
    assert samples["cvagent_rounds_total", "done", "jobs"] == 1
    assert samples["cvagent_rounds_total", "jobs", "skipped"] == 1
    assert samples["cvagent_round_seconds_count", "jobs"] == 1
    assert samples["cvagent_last_round_timestamp_seconds", "jobs"] == lab.clock.now() - 40
    assert samples["cvagent_changes_total", "jobs", "new"] == 3
    assert samples["cvagent_changes_total", "ended", "jobs"] == 0
    assert samples["cvagent_deliveries_total", "accepted", SINK] == 1
    assert samples["cvagent_deliveries_total", SINK, "refused"] == 1
    assert samples["cvagent_deliveries_total", SINK, "deferred"] == 1
    assert samples["cvagent_outbox_pending", SINK] == 1
    assert samples["cvagent_outbox_set_aside", SINK] == 1
    assert samples["cvagent_outbox_oldest_seconds", SINK] == 40
    assert samples["cvagent_slurm_rpc_seconds_count", "squeue"] == 2
    assert samples["cvagent_slurm_rpc_total", "failed", "squeue"] == 1
    assert any(name == "cvagent_build_info" for name, *_ in samples)


def test_labels_stay_few_whatever_jobs_and_commands_are_called(lab, job):
    server = lab.serve()
    before = set(scraped(server))
    for job_id in range(90_001, 90_020):
        long_why = Change(job(job_id), job(job_id, ended_at=1, state=State.FAILED), f"job {job_id} of alice is gone")
        lab.board.round_done("jobs", 0.1, Plan(changes=[long_why]), lab.clock.now())
        lab.record(job(job_id, name=f"alice-{job_id}"))
        lab.board.command_done(f"alice-{job_id}", 0.1, ok=True)
    lab.answer(Refused("400: alice"))
    text = requests.get(f"{server.url}/metrics", timeout=5).text
    assert "alice" not in text
    assert not [job_id for job_id in range(90_001, 90_020) if str(job_id) in text]
    added = set(scraped(server)) - before
    assert {labels for _, *labels in map(tuple, added) for labels in labels if labels[:1].isalpha()} == {"other", "ok"}
    assert scraped(server)["cvagent_changes_total", "ended", "jobs"] == 19


@pytest.mark.parametrize("name", ["jobs", SINK])
def test_names_nobody_announced_are_logged_and_harm_nothing(lab, caplog, name):
    server = lab.serve()
    before = readyz(server), set(scraped(server))
    lab.board.round_done(f"no-{name}", 1.0, Plan(), 0.0)
    lab.board.round_skipped(f"no-{name}", SourceError("x"), 0.0)
    lab.board.delivered(f"no-{name}", Accepted(), 0.0)
    lab.board.paused(f"no-{name}", "x", 1.0, 0.0)
    assert (readyz(server), set(scraped(server))) == before
    assert len(caplog.records) == 4


def test_board_hears_many_threads_at_once(lab):
    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            threads.submit(
                lambda: [lab.board.round_skipped("jobs", SourceError("squeue: no answer"), 1.0) for _ in range(200)]
            )
        threads.submit(lambda: [(lab.board.flows(), lab.board.errors()) for _ in range(200)])
    assert [error.times for error in lab.board.errors()] == [1600]
    assert scraped(lab.serve())["cvagent_rounds_total", "jobs", "skipped"] == 1600
