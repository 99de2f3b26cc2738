import base64
import hashlib
import re
from decimal import Decimal

import pytest
import requests
from fakes import a_node

from cvagent.api.documents import decode_facts, decode_rows
from cvagent.api.observer import Board
from cvagent.errors import SourceError
from cvagent.model import Accepted, Change, Deferred, Plan, Refused, State
from cvagent.model.holdings import Holding, How, Link, Port, Sharing
from cvagent.model.usage import UsageReport

SINK = "cloudvision_jobs"
NOW = 1_772_362_800.0
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}\u202e"


def page(server):
    answer = requests.get(f"{server.url}/", timeout=5)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def words(server):
    """The page as it reads: no tags, no style, single spaces."""
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page(server), flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def documents(server, **query):
    answer = requests.get(f"{server.url}/documents", params={"sink": SINK, **query}, timeout=5)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return decode_rows(answer.content)


def test_page_says_who_it_is_and_what_is_wrong(lab):
    text = words(lab.serve(mode="both"))
    assert "cluster lab" in text
    assert "CloudVision cvp.example.org" in text
    assert "mode both" in text
    assert "Not ready. jobs: no round has succeeded yet" in text
    assert "No jobs yet: the first round has not succeeded yet." in text
    assert "None since the agent began." in text


def test_page_after_a_round_without_jobs(lab):
    server = lab.serve()
    lab.record()
    text = words(server)
    assert "Ready." in text
    assert "No jobs yet: the last round found none to report." in text


def test_page_shows_what_cloudvision_holds(lab, job):
    server = lab.serve()
    lab.record(
        job(1, nodes="node[001-016]"), job(2, state=State.FAILED, ended_at=job(2).started_at + 60, inferred=True)
    )
    lab.answer(Accepted())
    lab.clock.time += 90
    text = words(server)
    assert "1@lab train @ gpu running 16 node[001-016] 2026-03-01 10:50:00 - 2026-03-01 11:00:00" in text
    assert "2@lab train @ gpu failed 1 node001 2026-03-01 10:50:00 2026-03-01 10:51:00 concluded" in text
    assert "Last accepted 90 s ago" in text


def test_page_shows_what_waits_and_how_to_mend_it(lab, job, tmp_path):
    server = lab.serve(store_url=f"sqlite:///{tmp_path}/store")
    lab.record(job(1), job(2))
    lab.answer(Refused("400: no such location"), key="1@lab")
    lab.answer(Deferred("409: busy"), key="2@lab", retry_in_s=30)
    text = words(server)
    assert "1@lab train @ gpu running 1 400: no such location cvagent outbox retry 1@lab" in text
    assert "2@lab train @ gpu running 1 409: busy 2026-03-01 11:00:30" in text
    assert "cvagent outbox drop KEY" in text
    assert "No jobs yet: CloudVision has not accepted one." in text
    assert f"{SINK}: 1 set aside, to be looked at" in text


def test_page_names_a_mend_that_works_with_a_store_in_memory(lab, job):
    server = lab.serve()
    lab.record(job(1))
    lab.answer(Refused("400"))
    text = words(server)
    assert "cvagent resend 1 " in text
    assert "outbox retry" not in text


def test_page_shows_refusal_problems_and_errors(lab, job):
    server = lab.serve()
    ended = Change(job(1), job(1, state=State.FAILED, ended_at=1, inferred=True), "gone")
    plan = Plan(refused=[ended] * 12, refusal="12 of 20 withheld", problems=["job 7: no start time"], unchanged=8)
    lab.board.round_done("jobs", 0.25, plan, lab.clock.now())
    for _ in range(3):
        lab.board.round_skipped("jobs", SourceError("squeue: no answer"), lab.clock.now())
    text = words(server)
    assert "Ready." in text
    assert "12 of 20 withheld" in text
    assert "Withheld 12" in text
    assert "job 7: no start time" in text
    assert "jobs squeue: no answer 3" in text


def test_only_the_last_errors_are_kept(lab):
    for number in range(200):
        lab.board.round_skipped("jobs", SourceError(f"error {number}"), lab.clock.now())
    errors = lab.board.errors()
    assert len(errors) == 50
    assert errors[0].text == "error 199"


def test_hostile_texts_stay_text(lab, job):
    server = lab.serve()
    lab.record(job(1, name=HOSTILE, partition=HOSTILE, nodes=HOSTILE), job(2, name=HOSTILE), job(3))
    lab.answer(Accepted(), key="1@lab")
    lab.answer(Refused(HOSTILE), key="2@lab")
    lab.board.round_done("jobs", 1.0, Plan(problems=[HOSTILE], refusal=HOSTILE), lab.clock.now())
    lab.board.round_skipped("jobs", SourceError(HOSTILE), lab.clock.now())
    lab.board.paused(SINK, HOSTILE, lab.clock.now() + 9, lab.clock.now())
    text = page(server)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 8
    assert "{{7*7}}" in text
    assert f"<bdi>{HOSTILE[:1].replace('<', '&lt;')}script" in text


def test_page_holds_at_most_200_jobs(lab, job):
    server = lab.serve()
    lab.record(*(job(number) for number in range(1, 251)))
    lab.answer(Accepted())
    text = page(server)
    assert text.count('<td class="key">') == 200
    assert "The newest 200." in text


def test_page_counts_the_waiting_that_it_leaves_out(lab, job):
    server = lab.serve()
    lab.record(*(job(number) for number in range(1, 61)))
    assert "The newest 50 of 60." in page(server)


def test_page_needs_nothing_but_itself(lab):
    server = lab.serve()
    answer = requests.get(f"{server.url}/", timeout=5)
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert not re.search(r"\b(src|href|style|on\w+)=|url\(|@import", answer.text)
    assert '<meta http-equiv="refresh" content="10">' in answer.text


def test_store_that_does_not_answer_is_said(lab, broken):
    lab.outbox = broken
    server = lab.serve()
    assert "The store does not answer: what CloudVision holds is not known" in words(server)
    answer = requests.get(f"{server.url}/documents", params={"sink": SINK}, timeout=5)
    assert answer.status_code == 503
    assert answer.json() == {"detail": "the store does not answer: gone (CVAGENT_STORE_URL)"}


def test_documents_are_the_rows_of_the_store(lab, job):
    server = lab.serve()
    lab.record(job(1, name=HOSTILE), job(2), job(3))
    lab.answer(Accepted(), key="1@lab")
    lab.answer(Refused("400"), key="2@lab")
    assert documents(server) == lab.outbox.rows(SINK)
    assert [row.document.key for row in documents(server, status="set_aside")] == ["2@lab"]
    assert [row.document.key for row in documents(server, status="pending")] == ["3@lab"]
    assert documents(server, status="accepted") == lab.outbox.rows(SINK, "accepted")
    assert len(documents(server, limit=2)) == 2


@pytest.mark.parametrize(
    ("query", "status"),
    [({}, 422), ({"sink": "other"}, 404), ({"sink": SINK, "status": "lost"}, 422), ({"sink": SINK, "limit": 0}, 422)],
)
def test_wrong_questions_get_no_documents(lab, query, status):
    assert requests.get(f"{lab.serve().url}/documents", params=query, timeout=5).status_code == status


def test_page_shows_nodes(lab, job):
    nodes = "cloudvision_nodes"
    lab.board = Board(flows={"jobs": 110.0, "nodes": 300.0}, sinks={SINK: 300.0, nodes: 300.0})
    server = lab.serve()
    lab.record(job(1))
    assert "No nodes yet" in words(server)
    plan = Plan(changes=[Change(None, node, "new") for node in (a_node("n1"), a_node("n2", ended_at=7), a_node("n3"))])
    lab.outbox.record("nodes", [nodes], plan, lab.clock.now(), None)
    first, second, third = sorted(lab.outbox.due(nodes, lab.clock.now(), 9), key=lambda entry: entry.key)
    answers = [(first, Accepted(), 0.0), (second, Accepted(), 0.0), (third, Refused("400: no"), 0.0)]
    lab.outbox.settle(nodes, answers, lab.clock.now())
    text = words(server)
    assert "n1 1 interface present ens1f0 0c:42:a1:00:00:01 10.88.1.1 2026-03-01 11:00:00" in text
    assert "n2 1 interface gone" in text
    assert "n3 1 interface present 1 400: no cvagent inventory n3" in text


def test_facts_are_what_nodes_said(lab):
    server = lab.serve()
    said = {"n1": (b'{"schema":1}', 7.0), "n2": (b"[]", 7.0)}
    lab.outbox.facts().keep({node: line for node, (line, _) in said.items()}, 7.0)
    assert decode_facts(requests.get(f"{server.url}/facts", timeout=5).content) == said
    one = requests.get(f"{server.url}/facts", params={"node": ["n2", "n3"]}, timeout=5)
    assert decode_facts(one.content) == {"n2": (b"[]", 7.0)}


@pytest.mark.parametrize(
    ("sharing", "shown"), [(Sharing.INTERFACES, "node1 1 interface "), (Sharing.SHARED, "node1 shared ")]
)
def test_page_says_how_a_job_was_told(lab, job, sharing, shown):
    server = lab.serve()
    port = Port("ens1", "94:6d:ae:00:00:01", None, None)
    holdings = (Holding("node1", How.EXACT, (Link("nic", 0, None, None, (port,)),)),)
    lab.record(job(1, nodes="node1", sharing=sharing, holdings=holdings))
    lab.answer(Accepted())
    assert shown in words(server)


def test_page_shows_usage(lab):
    usage = "portal_usage"
    lab.board = Board(flows={"usage": 110.0}, sinks={usage: 300.0})
    server = lab.serve()
    assert "What was taken" not in words(server)
    amounts = (("cpu", Decimal("1.50")),)
    reports = [
        UsageReport(f"{uuid}/2026-03", uuid, "hpc_a", "2026-03", amounts, (("alice", amounts),), 2**40)
        for uuid in ("a", "b")
    ]
    lab.outbox.record("usage", [usage], Plan(changes=[Change(None, one, "new") for one in reports]), NOW, None)
    taken, refused = sorted(lab.outbox.due(usage, NOW, 9), key=lambda entry: entry.key)
    lab.outbox.settle(usage, [(taken, Accepted(), 0.0), (refused, Refused("400: no"), 0.0)], NOW)
    text = words(server)
    assert "a/2026-03 hpc_a cpu 1.50 (1 user) 2026-03 2026-03-01 11:00:00" in text
    assert "b/2026-03 hpc_a cpu 1.50 (1 user) 2026-03 1 400: no" in text
