"""Decides what CloudVision is to be told about tenants: who has which nodes or interfaces, from when and until when."""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from cvagent.guard import absences, overdue, refusal
from cvagent.model import Change, Known, Plan, State
from cvagent.model.orders import Resource, ResourceState
from cvagent.model.tenants import TenantConfig, TenantsSeen
from cvagent.pull.places import Place, PlaceRules, place_of

_RUNNING = {ResourceState.OK, ResourceState.UPDATING}
_LEAVING = {ResourceState.TERMINATING, ResourceState.TERMINATED}
# What may come of what others wrote, however odd: it spoils that one tenant and no other.
_SPOILT = (ValueError, TypeError, LookupError, OverflowError, RecursionError)

# By key; `open_ones` by resource.
_Known = Mapping[str, Known[TenantConfig]]


class TenantRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        absent_rounds: See `guard.RemovalRules`, for this and what follows.
    """

    places: PlaceRules = PlaceRules()
    absent_rounds: int = 3
    removal_share: float = 0.3
    force: bool = False


def plan_tenants(observed: TenantsSeen, known: _Known, rules: TenantRules) -> Plan:
    """Compare what the portal and Slurm say with what is known. On one node the older of two tenants stays.

    What CloudVision tells, and is not known, counts as known, and is told again: from then on it is known.
    """
    told = {key: Known(config) for key, config in observed.told.items()} | dict(known)
    open_ones = {item.document.resource: item for item in told.values() if item.document.ended_at is None}
    problems: list[str] = []
    wanted = _without_rivals(_running(observed, told, open_ones, rules, problems), problems)
    ended = [config for item in open_ones.values() if (config := _ended(item.document, observed))]
    lost = _lost(open_ones, ended, observed)
    missed = overdue(lost, rules)
    gone = _gone(missed, observed, problems)
    doubtful = [item for item in missed if observed.sought.get(item.document.resource) is None]
    withheld = refusal(len(doubtful), len(open_ones), rules, "tenants are no longer at the portal: their end is")
    decided = [*wanted, *ended, *(() if withheld else gone)]
    return Plan(
        changes=_changes([*decided, *_adopted(open_ones, known, decided)], known),
        absences=absences(known.values(), lost, observed.tenancy.at),
        refused=_changes(gone, known) if withheld else (),
        refusal=withheld,
        unchanged=sum(config.key in known and known[config.key].document == config for config in wanted),
        problems=[*observed.tenancy.problems, *problems],
    )


def _lost(open_ones: _Known, ended: list[TenantConfig], observed: TenantsSeen) -> list[Known[TenantConfig]]:
    """Those whose resource is in no list. None, while a list could be read in part only."""
    over = {config.resource for config in ended}
    if observed.tenancy.problems:
        return []
    return [item for uuid, item in open_ones.items() if uuid not in observed.tenancy.resources and uuid not in over]


def _gone(missed: list[Known[TenantConfig]], observed: TenantsSeen, problems: list[str]) -> list[TenantConfig]:
    """The end of those that the portal does not know any more. What it still shows may be in a state of tomorrow's."""
    configs = [item.document for item in missed if item.document.resource in observed.sought]
    alive = [config for config in configs if observed.sought[config.resource]]
    problems += [f"{config.name}: the portal's list leaves it out, and the portal still has it" for config in alive]
    return [_over(config, State.COMPLETED, observed) for config in configs if config not in alive]


def _adopted(open_ones: _Known, known: _Known, decided: list[TenantConfig]) -> list[TenantConfig]:
    """What CloudVision says that runs, of which nothing else was decided: to be remembered as it is."""
    keys = {config.key for config in decided} | known.keys()
    return [item.document for item in open_ones.values() if item.document.key not in keys]


def _changes(configs: list[TenantConfig], known: _Known) -> list[Change]:
    pairs = [(known[config.key].document if config.key in known else None, config) for config in configs]
    return [
        Change(before, after, "ended" if after.ended_at else "changed" if before else "new")
        for before, after in pairs
        if before != after
    ]


def _running(
    observed: TenantsSeen, told: _Known, open_ones: _Known, rules: TenantRules, problems: list[str]
) -> list[TenantConfig]:
    """The tenants that have a place, the older first."""
    found = []
    for resource in observed.tenancy.resources.values():
        account = resource.backend_id.lower()
        if resource.state not in _RUNNING or account not in observed.tenancy.tree.accounts:
            continue
        before = open_ones[resource.uuid].document if resource.uuid in open_ones else None
        try:
            place = place_of(resource, account, observed, rules.places)
        except _SPOILT as error:
            problems.append(f"{account}: {error}")
            continue
        if place == Place():
            problems += (
                [f"{account}: nothing names its nodes any more; what CloudVision was told stays"] if before else []
            )
            continue
        found.append(_config(resource, place, before, observed, told))
    return sorted(found, key=lambda config: (config.started_at, config.key))


def _config(
    resource: Resource, place: Place, before: TenantConfig | None, observed: TenantsSeen, told: _Known
) -> TenantConfig:
    return TenantConfig(
        key=before.key if before else _new_key(resource.uuid, told),
        resource=resource.uuid,
        name=resource.backend_id.lower(),
        state=State.RUNNING,
        started_at=before.started_at if before else observed.tenancy.at,
        nodes=place.nodes,
        interfaces=place.interfaces,
    )


def _new_key(uuid: str, told: _Known) -> str:
    """What ended is never set back to running: whoever comes back gets another key."""
    taken = [item.document.key.partition(".")[2] for item in told.values() if item.document.resource == uuid]
    return f"{uuid}.{max(int(number or 0) for number in taken) + 1}" if taken else uuid


def _without_rivals(configs: list[TenantConfig], problems: list[str]) -> list[TenantConfig]:
    """Take from each tenant the nodes that an older one has."""
    owners: dict[str, str] = {}
    kept = []
    for config in configs:
        foreign = {node: owners[node] for node in config.nodes if node in owners}
        if foreign:
            node, owner = next(iter(foreign.items()))
            problems.append(
                f"{config.name}: {len(foreign)} of its nodes are another tenant's already ({node}: {owner})"
            )
        nodes = tuple(node for node in config.nodes if node not in foreign)
        owners |= dict.fromkeys(nodes, config.name)
        if nodes or config.interfaces:
            kept.append(replace(config, nodes=nodes))
    return kept


def _ended(config: TenantConfig, observed: TenantsSeen) -> TenantConfig | None:
    """Its end, when the portal says that there is one: it terminates, or what should have become of it failed."""
    resource = observed.tenancy.resources.get(config.resource) or observed.sought.get(config.resource)
    if resource and resource.state in _LEAVING:
        return _over(config, State.COMPLETED, observed)
    failed = resource and resource.state is ResourceState.ERRED
    if failed and config.name not in observed.tenancy.tree.accounts:
        return _over(config, State.FAILED, observed)
    return None


def _over(config: TenantConfig, state: State, observed: TenantsSeen) -> TenantConfig:
    return replace(config, state=state, ended_at=max(observed.tenancy.at, config.started_at))
