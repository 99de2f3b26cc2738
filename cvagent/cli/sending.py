"""Delivers what a command put into an outbox, with a progress bar, and tells what did not get through."""

import threading
import time
from collections.abc import Callable

import click
from rich.console import Console
from rich.progress import Progress

from cvagent.app import SystemClock
from cvagent.loops import Courier
from cvagent.model import Outcome, Plan
from cvagent.ports import Surroundings
from cvagent.sinks.cloudvision import CloudVisionSink
from cvagent.store.outbox import SqlOutbox

# A sink that takes nothing for so long is given up; running the command again is safe.
_PATIENCE_S = 60.0


class Sending:
    """One sink, the outbox it is fed from, and the bar.

    Attributes:
        progress: To be entered before anything is sent.
    """

    def __init__(self, outbox: SqlOutbox, sink: CloudVisionSink) -> None:
        self._outbox = outbox
        self._sink = sink
        self.progress = Progress(console=(console := Console(stderr=True)), disable=not console.is_terminal)
        around = Surroundings(outbox, SystemClock(), _Bar(self._step), lambda _name: None, threading.Event())
        self._courier = Courier(sink, 5.0, around)
        self._task = self.progress.add_task("sending", total=None)

    def expect(self, total: int) -> None:
        """So many documents are to be sent in all."""
        self.progress.update(self._task, total=total)

    def deliver(self) -> None:
        """Send what is pending, until it is gone or nothing moves any more."""
        deadline = time.monotonic() + _PATIENCE_S
        pending = self._pending()
        while pending and time.monotonic() < deadline:
            self._courier.run()
            if (left := self._pending()) == pending:
                time.sleep(0.2)
            else:
                pending, deadline = left, time.monotonic() + _PATIENCE_S

    def told(self, total: int) -> bool:
        """Say how many of `total` documents got through, and what is wrong with the rest; whether all did."""
        for row in (*self._outbox.rows(self._sink.name, "set_aside"), *self._outbox.rows(self._sink.name, "pending")):
            click.echo(f"{row.document.key}: {row.error or 'not sent'}", err=True)
        left = self._outbox.waiting(self._sink.name, time.time())
        failed = left.pending + left.set_aside
        click.echo(f"{max(0, total - failed)} of {total} documents sent" if total else "nothing to send")
        self._sink.close()
        self._outbox.close()
        return not failed

    def _pending(self) -> int:
        return self._outbox.waiting(self._sink.name, time.time()).pending

    def _step(self, outcome: Outcome) -> None:
        if type(outcome).__name__ != "Deferred":
            self.progress.advance(self._task)


class _Bar:
    """An observer that moves the progress bar."""

    def __init__(self, step: Callable[[Outcome], None]) -> None:
        self._step = step

    def round_done(self, flow: str, seconds: float, plan: Plan, at: float) -> None:
        """No rounds here."""

    def round_skipped(self, flow: str, error: Exception, at: float) -> None:
        """No rounds here."""

    def delivered(self, sink: str, outcome: Outcome, at: float) -> None:
        """One more, or one that must wait."""
        del sink, at
        self._step(outcome)

    def paused(self, sink: str, reason: str, until: float, at: float) -> None:
        """Say why nothing moves."""
        del until, at
        click.echo(f"{sink} waits: {reason}", err=True)
