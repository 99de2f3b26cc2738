"""One contract for every database that can hold the outbox."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Barrier, Thread

import msgspec
import pytest
from fakes import a_document, a_node
from msgspec.structs import replace

from cvagent.errors import StoreError
from cvagent.model import Absence, Accepted, Change, Deferred, Due, Entry, Known, Plan, Refused, State
from cvagent.model.errands import Commands, OrderAnswer, Verdict
from cvagent.model.holdings import Holding, How, Link, Nearness, Port, Sharing
from cvagent.store.outbox import SqlOutbox

SINK = "cloudvision_jobs"
RUNNING = a_document("1@lab")
ENDED = replace(RUNNING, state=State.COMPLETED, ended_at=200)
OTHER = a_document("2@lab")
DAY_S = 86_400

Open = Callable[..., SqlOutbox]


ON_SERVER = pytest.param("server", marks=pytest.mark.postgresql)


@pytest.fixture(params=["memory", "file", ON_SERVER])
def outbox(request, tmp_path) -> Iterator[SqlOutbox]:
    with closing(SqlOutbox(url_of(request, tmp_path), "lab")) as opened:
        yield opened


@pytest.fixture(params=["file", ON_SERVER])
def durable(request, tmp_path) -> str:
    return url_of(request, tmp_path)


def url_of(request, tmp_path) -> str:
    if request.param == "server":
        return request.getfixturevalue("postgresql_database")
    return "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'outbox.db'}"


def write(outbox, *documents, now=1000.0, checkpoint=None, absences=None, sinks=(SINK,)):
    changes = [Change(None, document, "new") for document in documents]
    outbox.record("jobs", sinks, Plan(changes=changes, absences=absences or {}), now, checkpoint)


def due(outbox, now=1000.0, sink=SINK) -> list[Entry]:
    return outbox.due(sink, now, 100)


def settle(outbox, entry, outcome, retry_at=0.0, now=1001.0):
    outbox.settle(SINK, [(entry, outcome, retry_at)], now)


def statuses(outbox) -> dict[str, str]:
    return {row.document.key: row.status for row in outbox.rows(SINK)}


def test_an_empty_store_knows_nothing(outbox):
    assert outbox.known(SINK, 0) == {}
    assert outbox.checkpoint("jobs") is None
    assert due(outbox) == []
    assert outbox.waiting(SINK, 1000) == Due(pending=0, set_aside=0, oldest_s=0.0)
    assert outbox.next_due(SINK) is None
    assert outbox.rows(SINK) == []


def test_what_is_recorded_is_due_and_known(outbox):
    write(outbox, RUNNING)
    assert outbox.known(SINK, 0) == {RUNNING.identity: Known(RUNNING)}
    assert [entry[2:4] for entry in due(outbox)] == [(RUNNING, 0)]
    assert outbox.waiting(SINK, 1010) == Due(pending=1, set_aside=0, oldest_s=10.0)


def test_an_accepted_document_is_not_sent_again(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Accepted())
    write(outbox, RUNNING, now=1002.0)
    assert due(outbox, 2000.0) == []
    assert outbox.known(SINK, 0) == {RUNNING.identity: Known(RUNNING)}
    [row] = outbox.rows(SINK)
    assert (row.status, row.accepted_at, row.changed_at, row.error) == ("accepted", 1001.0, 1000.0, None)


def test_an_accepted_document_that_changed_is_sent(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Accepted())
    write(outbox, ENDED, now=1002.0)
    assert [entry.document for entry in due(outbox, 1002.0)] == [ENDED]


def test_a_deferred_entry_waits_for_its_time(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Deferred("503"), retry_at=1030.0)
    assert due(outbox, 1029.0) == []
    assert [entry.attempts for entry in due(outbox, 1030.0)] == [1]
    assert outbox.next_due(SINK) == 1030.0


def test_a_deferral_of_everything_is_no_try_of_the_entry(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Deferred("503", everything=True))
    assert [entry.attempts for entry in due(outbox)] == [0]
    assert outbox.rows(SINK)[0].error == "503"


def test_an_equal_pending_change_keeps_the_back_off(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Deferred("503"), retry_at=1030.0)
    write(outbox, RUNNING, now=1005.0)
    assert due(outbox, 1029.0) == []
    assert [entry.attempts for entry in due(outbox, 1030.0)] == [1]
    assert outbox.waiting(SINK, 1010.0).oldest_s == 10.0


def test_a_different_change_is_due_at_once(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Deferred("503"), retry_at=1030.0)
    write(outbox, ENDED, now=1005.0)
    assert [entry[2:4] for entry in due(outbox, 1005.0)] == [(ENDED, 0)]


def test_an_equal_change_stays_aside(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Refused("400: no such field"))
    write(outbox, RUNNING, now=1002.0)
    assert due(outbox, 2000.0) == []
    assert outbox.waiting(SINK, 2000.0) == Due(pending=0, set_aside=1, oldest_s=0.0)
    [row] = outbox.rows(SINK)
    assert (row.status, row.error, row.attempts) == ("set_aside", "400: no such field", 1)
    assert outbox.next_due(SINK) is None


def test_a_different_change_revives_what_was_set_aside(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Refused("400"))
    write(outbox, ENDED, now=1002.0)
    assert [entry[2:4] for entry in due(outbox, 1002.0)] == [(ENDED, 0)]
    assert outbox.rows(SINK)[0].error is None


@pytest.mark.parametrize("outcome", [Accepted(), Refused("400"), Deferred("503")])
def test_an_outcome_of_a_replaced_entry_changes_nothing(outbox, outcome):
    write(outbox, RUNNING)
    [old] = due(outbox)
    write(outbox, ENDED, now=1001.0)
    settle(outbox, old, outcome, retry_at=9999.0)
    assert [entry[2:4] for entry in due(outbox, 1001.0)] == [(ENDED, 0)]


def test_an_outcome_counts_even_when_an_equal_change_came_meanwhile(outbox):
    write(outbox, RUNNING)
    [entry] = due(outbox)
    write(outbox, RUNNING, now=1001.0)
    settle(outbox, entry, Accepted())
    assert statuses(outbox) == {"1@lab": "accepted"}


def test_there_and_back_again_is_a_new_entry(outbox):
    write(outbox, RUNNING)
    [old] = due(outbox)
    write(outbox, ENDED)
    write(outbox, RUNNING)
    settle(outbox, old, Accepted())
    assert [entry.document for entry in due(outbox)] == [RUNNING]


def test_an_old_outcome_does_not_count_for_an_entry_that_came_back_after_a_drop(outbox):
    write(outbox, RUNNING)
    [old] = due(outbox)
    assert outbox.drop(SINK, []) == 1
    write(outbox, RUNNING)
    settle(outbox, old, Refused("400"))
    [new] = due(outbox)
    assert new.version != old.version


def test_an_outcome_after_a_drop_brings_nothing_back(outbox):
    write(outbox, RUNNING)
    [old] = due(outbox)
    outbox.drop(SINK, ["1@lab"])
    settle(outbox, old, Accepted())
    assert outbox.rows(SINK) == []


def test_equal_means_equal_values_whatever_their_history(outbox):
    document = a_document("1@lab", name="Zug ünï→漢字 \x1f\n")
    write(outbox, document)
    settle(outbox, *due(outbox), Accepted())
    write(outbox, replace(replace(document, name="x"), name="".join(list(document.name))))
    assert due(outbox) == []


def test_least_tried_first_then_oldest(outbox):
    write(outbox, a_document("1@lab"), now=1000.0)
    settle(outbox, *due(outbox), Deferred("503"), retry_at=0.0)
    write(outbox, a_document("3@lab"), now=1002.0)
    write(outbox, a_document("2@lab"), now=1001.0)
    assert [entry.key for entry in due(outbox, 1002.0)] == ["2@lab", "3@lab", "1@lab"]
    assert [entry.key for entry in outbox.due(SINK, 1002.0, 1)] == ["2@lab"]


def test_checkpoint_and_changes_come_together(outbox):
    write(outbox, RUNNING, checkpoint=500)
    write(outbox, ENDED, checkpoint=510)
    write(outbox, OTHER, checkpoint=None)
    assert outbox.checkpoint("jobs") == 510
    assert outbox.checkpoint("nodes") is None


def test_a_round_that_breaks_in_the_middle_leaves_nothing(outbox):
    write(outbox, RUNNING, checkpoint=500)
    too_large = a_document("3@lab", state=State.COMPLETED, ended_at=2**70)
    with pytest.raises(Exception, match=r".+"):
        write(outbox, ENDED, OTHER, too_large, checkpoint=510, absences={"1@lab": Absence(1, 1)})
    assert outbox.known(SINK, 0) == {RUNNING.identity: Known(RUNNING)}
    assert outbox.checkpoint("jobs") == 500


def test_a_checkpoint_that_cannot_be_written_takes_the_changes_back(outbox):
    with pytest.raises(Exception, match=r".+"):
        write(outbox, RUNNING, checkpoint=2**70)
    assert outbox.known(SINK, 0) == {}
    write(outbox, RUNNING, checkpoint=1)
    assert outbox.checkpoint("jobs") == 1


def test_clusters_share_a_database_and_do_not_see_each_other(durable):
    with closing(SqlOutbox(durable, "lab")) as lab, closing(SqlOutbox(durable, "other")) as other:
        write(lab, RUNNING, checkpoint=500)
        assert other.known(SINK, 0) == {}
        assert other.checkpoint("jobs") is None
        assert other.rows(SINK) == due(other) == []
        assert (other.retry(SINK, []), other.drop(SINK, []), other.purge([SINK], 2**40, 0)) == (0, 0, 0)
        write(other, ENDED, checkpoint=900)
        assert lab.known(SINK, 0) == {RUNNING.identity: Known(RUNNING)}
        assert lab.checkpoint("jobs") == 500


def test_sinks_have_entries_of_their_own(outbox):
    write(outbox, RUNNING, sinks=("one", "two"))
    outbox.settle("one", [(*due(outbox, sink="one"), Accepted(), 0.0)], 1001.0)
    assert due(outbox, sink="one") == []
    assert [entry.document for entry in due(outbox, sink="two")] == [RUNNING]


def test_everything_is_there_after_a_restart(durable):
    with closing(SqlOutbox(durable, "lab")) as before:
        write(before, RUNNING, OTHER, checkpoint=500, absences={"1@lab": Absence(2, 400)})
        first, _ = due(before)
        settle(before, first, Deferred("503"), retry_at=1030.0)
        rows = before.rows(SINK)
    with closing(SqlOutbox(durable, "lab")) as after:
        assert after.rows(SINK) == rows
        assert after.checkpoint("jobs") == 500
        assert after.known(SINK, 0)[RUNNING.identity] == Known(RUNNING, Absence(2, 400))
        assert after.next_due(SINK) == 0.0
        settle(after, due(after)[0], Accepted())
        assert after.next_due(SINK) == 1030.0


def test_absences_are_kept_beside_the_document(outbox):
    write(outbox, RUNNING)
    settle(outbox, *due(outbox), Accepted())
    write(outbox, absences={"1@lab": Absence(1, 900), "9@lab": Absence(1, 900)})
    assert outbox.known(SINK, 0) == {RUNNING.identity: Known(RUNNING, Absence(1, 900))}
    assert due(outbox) == []
    write(outbox, absences={"1@lab": Absence()})
    assert outbox.known(SINK, 0) == {RUNNING.identity: Known(RUNNING)}


def test_known_holds_what_is_open_and_what_ended_since(outbox):
    write(outbox, ENDED, OTHER)
    assert set(outbox.known(SINK, 200)) == {ENDED.identity, OTHER.identity}
    assert set(outbox.known(SINK, 201)) == {OTHER.identity}


def test_an_inferred_end_is_known_for_a_day(outbox):
    write(outbox, replace(ENDED, inferred=True))
    assert set(outbox.known(SINK, 200 + DAY_S)) == {ENDED.identity}
    assert outbox.known(SINK, 201 + DAY_S) == {}


def test_purge_forgets_what_was_accepted_and_ended_long_ago(outbox):
    aside, pending = a_document("3@lab", ended_at=200), a_document("4@lab", ended_at=200)
    write(outbox, ENDED, OTHER, aside)
    outcomes = {"1@lab": Accepted(), "2@lab": Accepted(), "3@lab": Refused("400")}
    outbox.settle(SINK, [(entry, outcomes[entry.key], 0.0) for entry in due(outbox)], 1001.0)
    write(outbox, pending)
    assert outbox.purge([SINK], 200, 0) == 0
    assert outbox.purge([SINK], 201, 0) == 1
    assert statuses(outbox) == {"2@lab": "accepted", "3@lab": "set_aside", "4@lab": "pending"}


def test_retry_makes_due_what_was_set_aside_or_delayed(outbox):
    write(outbox, RUNNING, OTHER, a_document("3@lab"))
    entries = {entry.key: entry for entry in due(outbox)}
    settle(outbox, entries["1@lab"], Refused("400"))
    settle(outbox, entries["2@lab"], Deferred("503"), retry_at=9999.0)
    settle(outbox, entries["3@lab"], Accepted())
    assert outbox.retry(SINK, ["1@lab", "3@lab", "nothing@lab"]) == 1
    assert [(entry.key, entry.attempts) for entry in due(outbox)] == [("1@lab", 0)]
    assert outbox.retry(SINK, []) == 2
    assert {entry.key for entry in due(outbox)} == {"1@lab", "2@lab"}


def test_drop_forgets_what_waits_and_nothing_that_was_accepted(outbox):
    write(outbox, RUNNING, OTHER, a_document("3@lab"))
    entries = {entry.key: entry for entry in due(outbox)}
    settle(outbox, entries["1@lab"], Refused("400"))
    settle(outbox, entries["3@lab"], Accepted())
    assert outbox.drop(SINK, ["1@lab"]) == 1
    assert outbox.drop(SINK, []) == 1
    assert statuses(outbox) == {"3@lab": "accepted"}


def test_rows_come_newest_first_and_by_status(outbox):
    write(outbox, RUNNING, now=1000.0)
    settle(outbox, *due(outbox), Refused("400"))
    write(outbox, OTHER, now=1002.0)
    assert [row.document for row in outbox.rows(SINK)] == [OTHER, RUNNING]
    assert [row.document for row in outbox.rows(SINK, "set_aside")] == [RUNNING]
    assert [row.document for row in outbox.rows(SINK, limit=1)] == [OTHER]


def test_rounds_and_deliveries_at_the_same_time_lose_nothing(outbox):
    jobs = [a_document(f"{number}@lab") for number in range(1, 41)]
    start, errors = Barrier(2, timeout=30), []

    def collect() -> None:
        start.wait()
        for second in range(20):
            order = jobs if second % 2 else jobs[::-1]
            ended_at = None if second < 19 else 900
            state = State.RUNNING if ended_at is None else State.COMPLETED
            documents = [replace(job, name=f"step {second}", ended_at=ended_at, state=state) for job in order]
            write(outbox, *documents, now=1000.0 + second, checkpoint=second)

    def deliver() -> None:
        start.wait()
        for _ in range(40):
            outbox.settle(SINK, [(entry, Accepted(), 0.0) for entry in due(outbox, 2000.0)], 2000.0)

    def noted(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [Thread(target=noted, args=(work,)) for work in (collect, deliver)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert outbox.checkpoint("jobs") == 19
    outbox.settle(SINK, [(entry, Accepted(), 0.0) for entry in due(outbox, 2000.0)], 2000.0)
    assert {row.document.name for row in outbox.rows(SINK, "accepted")} == {"step 19"}
    assert len(outbox.rows(SINK, "accepted")) == 40


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql://cvagent:s3cret@127.0.0.1:notaport/cvagent",
        "postgresql://cvagent:s3cret@127.0.0.1:1/cvagent?connect_timeout=2",
        "postgresql://cvagent:s3cret/more@127.0.0.1:1/cvagent?connect_timeout=2",
        "mysql://cvagent:s3cret@127.0.0.1/cvagent",
        "nosuch://cvagent:s3cret@127.0.0.1/cvagent",
        "sqlite:////nosuch/folder/outbox.db",
    ],
)
def test_a_store_that_does_not_open_says_so_without_its_password(url):
    with pytest.raises(StoreError, match="CVAGENT_STORE_URL") as caught:
        SqlOutbox(url, "lab")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_no_database_is_a_store_error(tmp_path):
    (tmp_path / "outbox.db").write_text("not a database\n" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SqlOutbox(f"sqlite:///{tmp_path / 'outbox.db'}", "lab")


def test_a_database_that_breaks_later_is_a_store_error(tmp_path):
    path = tmp_path / "outbox.db"
    with closing(SqlOutbox(f"sqlite:///{path}", "lab")) as outbox:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE cvagent_documents")
        with pytest.raises(StoreError, match="CVAGENT_STORE_URL") as caught:
            write(outbox, a_document(name="a name for nobody's eyes"))
    assert "nobody" not in str(caught.value)


def test_a_named_memory_database_is_one_database_for_all_threads():
    with closing(SqlOutbox("sqlite:///:memory:", "lab")) as outbox:
        thread = Thread(target=write, args=(outbox, RUNNING))
        thread.start()
        thread.join()
        assert set(outbox.known(SINK, 0)) == {RUNNING.identity}


def test_facts_are_kept_replaced_and_forgotten(outbox):
    facts = outbox.facts()
    assert facts.after(0) == {}
    facts.keep({"n1": b"one", "n2": b"two"}, 10.0)
    facts.keep({"n1": b"news"}, 20.5)
    assert facts.after(0) == {"n1": (b"news", 20.5), "n2": (b"two", 10.0)}
    assert facts.after(10.0) == {"n1": (b"news", 20.5)}
    facts.forget(["n1", "n9"])
    assert facts.after(0) == {"n2": (b"two", 10.0)}


def test_facts_of_many_nodes(outbox):
    facts = outbox.facts()
    for at in (1.0, 2.0):
        facts.keep({f"n{number}": b"x" for number in range(2500)}, at)
    assert len(facts.after(1.0)) == 2500
    facts.forget(f"n{number}" for number in range(2500))
    assert facts.after(0) == {}


def test_facts_outlive_the_process_and_keep_to_their_cluster(durable):
    with closing(SqlOutbox(durable, "lab")) as opened:
        opened.facts().keep({"n1": b"one"}, 1.0)
    with closing(SqlOutbox(durable, "other")) as opened:
        opened.facts().keep({"n1": b"another"}, 2.0)
        opened.facts().forget(["n1"])
    with closing(SqlOutbox(durable, "lab")) as opened:
        assert opened.facts().after(0) == {"n1": (b"one", 1.0)}


def test_rows_tell_how_long_something_was_absent(outbox):
    write(outbox, RUNNING)
    write(outbox, absences={RUNNING.key: Absence(2, 77)})
    assert [row.absence for row in outbox.rows(SINK)] == [Absence(2, 77)]


def test_nodes_are_held_as_jobs_are(outbox):
    gone = a_node("n1", ended_at=500)
    write(outbox, a_node("n1"), a_node("n2"))
    assert outbox.known(SINK, 0) == {name: Known(a_node(name)) for name in ("n1", "n2")}
    write(outbox, gone)
    for entry in due(outbox):
        settle(outbox, entry, Accepted())
    assert set(outbox.known(SINK, 501)) == {"n2"}
    assert outbox.purge([SINK], 501, 0) == 1
    write(outbox, a_node("n1"))
    assert [entry.document for entry in due(outbox)] == [a_node("n1")]


def test_facts_of_some_nodes(outbox):
    facts = outbox.facts()
    facts.keep({"n1": b"{}", "n2": b"[]"}, 7.0)
    assert facts.of(["n2", "n3"]) == {"n2": (b"[]", 7.0)}
    assert facts.of([]) == {}
    assert facts.of([f"n{number}" for number in range(40_000)]) == {"n1": (b"{}", 7.0), "n2": (b"[]", 7.0)}


def test_interfaces_are_kept(outbox):
    ports = (Port("ens1", "94:6d:ae:00:00:01", None, "0000:11:00.0"), Port("ib0", None, "00:01", None))
    links = (Link("gpu", 0, "0000:21:00.0", Nearness.SWITCH, ports), Link("nic", 1, None, None, ports))
    holdings = (Holding("n1", How.INFERRED, links), Holding("n2", How.UNRESOLVED, (), "why not"))
    document = replace(RUNNING, sharing=Sharing.INTERFACES, holdings=holdings)
    write(outbox, document)
    assert [entry.document for entry in due(outbox)] == [document]


def test_documents_of_a_release_that_knew_no_interfaces(tmp_path):
    path = tmp_path / "old.db"
    with closing(SqlOutbox(f"sqlite:///{path}", "lab")) as outbox:
        write(outbox, RUNNING)
    with closing(sqlite3.connect(path)) as database, database:
        [(body,)] = database.execute("SELECT body FROM cvagent_documents").fetchall()
        older = msgspec.json.encode(msgspec.json.decode(body)[:-2])
        database.execute("UPDATE cvagent_documents SET body = ?", (older,))
    with closing(SqlOutbox(f"sqlite:///{path}", "lab")) as outbox:
        assert [entry.document for entry in due(outbox)] == [RUNNING]


ERRANDS = (
    Commands("order-1", "Create bert", (("sacctmgr", "-i", "add"),)),
    OrderAnswer("order-1", Verdict.DONE, "bert", "resource-1", "hpc_a0000_bert"),
)


@pytest.mark.parametrize("errand", ERRANDS)
def test_an_errand_that_was_done_is_forgotten_and_may_come_again(outbox, errand):
    write(outbox, errand)
    assert outbox.known(SINK, 0) == {errand.key: Known(errand)}
    settle(outbox, *due(outbox), Accepted())
    assert outbox.rows(SINK) == []
    write(outbox, errand, now=1002.0)
    assert [entry.document for entry in due(outbox, 1002.0)] == [errand]


@pytest.mark.parametrize("errand", ERRANDS)
def test_an_errand_that_was_refused_stays_aside(outbox, errand):
    write(outbox, errand)
    settle(outbox, *due(outbox), Refused("no such thing"))
    write(outbox, errand, now=1002.0)
    assert due(outbox, 2000.0) == []
    assert [(row.status, row.error) for row in outbox.rows(SINK)] == [("set_aside", "no such thing")]


def test_an_errand_that_was_replaced_meanwhile_is_not_forgotten(outbox):
    first, _ = ERRANDS
    write(outbox, first)
    (entry,) = due(outbox)
    write(outbox, replace(first, commands=()))
    settle(outbox, entry, Accepted())
    assert [entry.document for entry in due(outbox)] == [replace(first, commands=())]
