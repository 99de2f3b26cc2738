import threading

import msgspec
import pytest

from cvagent.api.observer import Board
from cvagent.api.page import View
from cvagent.api.server import HttpServer, make_app
from cvagent.errors import StoreError
from cvagent.model import Change, JobConfig, Plan, State
from cvagent.settings import Settings
from cvagent.sources.node_reports import Mailbox
from cvagent.store.outbox import SqlOutbox

NOW = 1_772_362_800.0
SINK = "cloudvision_jobs"
TOKEN = "correct-horse"


class Clock:
    def __init__(self):
        self.time = NOW

    def now(self):
        return self.time


class Lab:
    """The real store and board of one cluster, a clock that tests own, and servers that end with the test."""

    def __init__(self, folder):
        self.clock = Clock()
        self.outbox = SqlOutbox("sqlite://", "lab")
        self.board = Board(flows={"jobs": 110.0}, sinks={SINK: 300.0})
        self.woken = 0
        self.mailbox = Mailbox(self._wake)
        self._folder = folder
        self._servers = []

    def _wake(self):
        self.woken += 1

    def serve(self, *, token=None, **changed):
        if token is not None:
            changed["http_token_file"] = self._folder / "http_token"
            changed["http_token_file"].write_text(f"{token}\n")
        settings = Settings(
            **{
                "cloudvision_url": "https://cvp.example.org",
                "cloudvision_token": "cloudvision-token",
                "http_listen": "127.0.0.1:0",
                **changed,
            }
        )
        view = View(self.outbox, self.board, settings, "lab", self.clock)
        server = HttpServer(make_app(view, self.mailbox), settings.http_listen)
        server.start()
        self._servers.append(server)
        return server

    def record(self, *documents):
        """A round that decided these documents."""
        plan = Plan(changes=[Change(None, document, "new") for document in documents])
        self.outbox.record("jobs", [SINK], plan, self.clock.now(), int(self.clock.now()))
        self.board.round_done("jobs", 0.5, plan, self.clock.now())

    def answer(self, outcome, *, key=None, retry_in_s=0.0):
        """The sink's answer to what is due, told to store and board as the courier does."""
        now = self.clock.now()
        entries = [entry for entry in self.outbox.due(SINK, now, 1000) if key in {None, entry.key}]
        self.outbox.settle(SINK, [(entry, outcome, now + retry_in_s) for entry in entries], now)
        for _ in entries:
            self.board.delivered(SINK, outcome, now)

    def close(self):
        for server in self._servers:
            server.stop()
        self.outbox.close()


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    yield lab
    lab.close()


@pytest.fixture
def job():
    """Makes a JobConfig: running on one node, unless told otherwise."""

    def made(job_id, **changed):
        document = JobConfig(
            key=f"{job_id}@lab",
            job_id=job_id,
            submitted_at=int(NOW) - 700,
            state=State.RUNNING,
            started_at=int(NOW) - 600,
            ended_at=None,
            name="train",
            partition="gpu",
            nodes="node001",
        )
        return msgspec.structs.replace(document, **changed)

    return made


class BrokenOutbox:
    """A store that is gone: whatever is asked, it does not answer."""

    def __getattr__(self, _method):
        return self._fail

    def _fail(self, *_args, **_kwargs):
        raise StoreError("the store does not answer: gone (CVAGENT_STORE_URL)")

    def close(self):
        pass


@pytest.fixture
def broken(lab):
    lab.outbox.close()
    return BrokenOutbox()


class HangingOutbox:
    """A store that answers only when the test lets it."""

    def __init__(self):
        self.asked = threading.Event()
        self.release = threading.Event()

    def waiting(self, _sink, _now):
        self.asked.set()
        self.release.wait(30)
        raise StoreError("too late")

    def close(self):
        self.release.set()


@pytest.fixture
def hanging(lab):
    lab.outbox.close()
    return HangingOutbox()
