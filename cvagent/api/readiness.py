"""Decides whether the agent does its work, and says in plain words what is wrong. Pure but for `look`.

Not here: whether the process lives at all (that is /healthz, which asks nobody).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from cvagent.api.times import moment, span
from cvagent.errors import StoreError
from cvagent.model import Due, Health, utc
from cvagent.ports import Outbox, Status


class FlowState(Struct, kw_only=True):
    """One flow, as /readyz tells it. Times are RFC 3339.

    Attributes:
        reason: What is wrong, in plain words; None when it is ready.
        last_success: None when there was none yet; so is `age_s`, in seconds.
        error: The last error since the last success; a flow may be ready with it.
        detail: What a person should know although all is well.
    """

    ready: bool
    reason: str | None
    last_success: str | None
    age_s: float | None
    error: str | None
    error_at: str | None
    detail: str | None


class SinkState(FlowState, kw_only=True):
    """One sink. `pending`, `set_aside` and `oldest_s` (seconds) are None when the store does not answer."""

    paused_until: str | None
    pending: int | None
    set_aside: int | None
    oldest_s: float | None


class Readiness(Struct):
    """The body of /readyz."""

    ready: bool
    reasons: list[str]
    flows: dict[str, FlowState]
    sinks: dict[str, SinkState]


class Waiting(NamedTuple):
    """What waits in the outboxes, by sink; `error` says why it is not known."""

    due: Mapping[str, Due]
    error: str | None = None


def look(status: Status, outbox: Outbox, now: float) -> Readiness:
    """How things stand. Never raises: a store that does not answer is a reason."""
    sinks = status.sinks()
    try:
        waiting = Waiting({sink: outbox.waiting(sink, now) for sink in sinks})
    except StoreError as error:
        waiting = Waiting({}, str(error))
    return judge(status.flows(), sinks, waiting, now)


def judge(flows: Mapping[str, Health], sinks: Mapping[str, Health], waiting: Waiting, now: float) -> Readiness:
    """Ready when every flow had a success lately and no sink is in trouble. What is set aside does not count."""
    flow_states = {name: FlowState(**_common(health, _flow_reason(health, now), now)) for name, health in flows.items()}
    sink_states = {name: _sink_state(health, waiting.due.get(name), now) for name, health in sinks.items()}
    states = {**flow_states, **sink_states}
    reasons = [f"{name}: {state.reason}" for name, state in states.items() if state.reason]
    reasons += [waiting.error] if waiting.error else []
    return Readiness(not reasons, reasons, flow_states, sink_states)


def _common(health: Health, reason: str | None, now: float) -> dict[str, Any]:
    succeeded = health.last_success or None
    return {
        "ready": reason is None,
        "reason": reason,
        "last_success": succeeded and utc(int(succeeded)),
        "age_s": succeeded and round(max(0.0, now - succeeded), 1),
        "error": health.error,
        "error_at": utc(int(health.last_error_at)) if health.error else None,
        "detail": health.detail,
    }


def _sink_state(health: Health, due: Due | None, now: float) -> SinkState:
    pending, set_aside, oldest_s = (due.pending, due.set_aside, round(due.oldest_s, 1)) if due else (None, None, None)
    return SinkState(
        **_common(health, _sink_reason(health, due, now), now),
        paused_until=utc(int(health.paused_until)) if health.paused_until > now else None,
        pending=pending,
        set_aside=set_aside,
        oldest_s=oldest_s,
    )


def _flow_reason(health: Health, now: float) -> str | None:
    if not health.last_success:
        return _because("no round has succeeded yet", health.error)
    age_s = now - health.last_success
    if health.stale_after_s and age_s > health.stale_after_s:
        return _because(f"no round has succeeded for {span(age_s)}", health.error)
    return None


def _sink_reason(health: Health, due: Due | None, now: float) -> str | None:
    if health.paused_until > now:
        return _because(f"waits until {moment(health.paused_until)} UTC", health.error)
    if due is None or not due.pending:
        return None
    if health.paused_until:
        return _because("is tried again", health.error)
    silent_s = now - health.last_success
    if health.stale_after_s and min(due.oldest_s, silent_s) > health.stale_after_s:
        return _because(f"{due.pending} pending, the oldest for {span(due.oldest_s)}", health.error)
    return None


def _because(what: str, error: str | None) -> str:
    return f"{what}: {error}" if error else what
