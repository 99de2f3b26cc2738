"""Who leaves an allocation's account, and when: readings of its team, and what they mean."""

import pytest
from msgspec.structs import replace
from tenancy import ACCOUNT, a_resource, a_tenancy, a_tree, provided

from cvagent.errors import SourceError
from cvagent.model import Ask
from cvagent.model.accounts import Account
from cvagent.model.orders import Listing, TeamMember, Username
from cvagent.model.tenancy import Members
from cvagent.pull.members import MemberRules, plan_members
from cvagent.sources.members import MemberSource

RESOURCE = a_resource()
ASK = Ask(now=100, since=0, known={}, cold=False)
RULES = MemberRules("lab")
PEOPLE = {name: f"{number:032x}" for number, name in enumerate(("alice", "bob", "carol"), 1)}


class World:
    """A portal, a cluster and a look at both; the team is alice and bob, who are in the account."""

    fresh_s = 0.0

    def __init__(self, *, max_age_s=0.0):
        self.team_of = ["alice", "bob"]
        self.problems = ()
        self.users = ("alice", "bob")
        self.reads = 0
        self.source = MemberSource(self, self, self, "offering", max_age_s)

    def observe(self, ask):
        del ask
        return a_tenancy(resources=(RESOURCE,), tree=a_tree(*provided(*self.users)))

    def team(self, uuid):
        assert uuid == RESOURCE.uuid
        self.reads += 1
        if self.team_of is None:
            raise SourceError("no answer")
        return Listing(tuple(TeamMember(PEOPLE[name], name) for name in self.team_of), self.problems)

    def offering_users(self):
        return Listing(tuple(Username(uuid, name) for name, uuid in PEOPLE.items()))

    def known_users(self, names):
        return names

    def leavers(self, rules=RULES):
        """The keys of those whom the next round takes out."""
        changes = plan_members(self.source.observe(ASK), {}, rules).changes
        return [change.after.key.partition("/")[2] for change in changes if "/" in change.after.key]


def test_somebody_leaves_after_three_good_readings_in_a_row():
    world = World()
    world.team_of = ["bob"]
    assert [world.leavers() for _ in range(4)] == [[], [], ["alice"], ["alice"]]


def test_who_is_there_again_begins_anew():
    world = World()
    said = []
    for team in (["bob"], ["bob"], ["alice", "bob"], ["bob"], ["bob"], ["bob"]):
        world.team_of = team
        said.append(world.leavers())
    assert said == [[], [], [], [], [], ["alice"]]


def test_a_reading_that_is_not_good_does_not_count():
    world = World()
    world.team_of = ["bob"]
    assert [world.leavers(), world.leavers()] == [[], []]
    world.problems = ("member 'x': is no object",)
    assert [world.leavers() for _ in range(3)] == [[], [], []]
    world.problems = ()
    world.team_of = None
    with pytest.raises(SourceError):
        world.leavers()
    world.team_of = ["bob"]
    assert world.leavers() == ["alice"]


def test_each_is_counted_alone():
    world = World()
    world.team_of = ["bob"]
    assert world.leavers() == []
    world.users = ("alice", "bob", "carol")
    assert [world.leavers() for _ in range(3)] == [[], ["alice"], ["alice", "carol"]]


def test_rounds_on_a_team_that_was_not_read_again_do_not_count():
    world = World(max_age_s=3600)
    world.fresh_s = 3600
    world.team_of = ["bob"]
    assert [world.leavers() for _ in range(5)] == [[]] * 5
    assert world.reads == 1


def test_a_team_is_read_again_sooner_while_somebody_is_missing_in_it():
    world = World(max_age_s=3600)
    assert [world.leavers() for _ in range(3)] == [[]] * 3
    assert world.reads == 1
    world.users = ("alice", "bob", "carol")
    assert [world.leavers() for _ in range(3)] == [[], [], ["carol"]]
    assert world.reads == 4
    world.users = ("alice", "bob")
    assert world.leavers() == []
    assert world.reads == 4


def test_a_removal_that_is_withheld_does_not_read_the_team_for_ever():
    world = World(max_age_s=3600)
    world.team_of = []
    assert [world.leavers() for _ in range(30)] == [[]] * 30
    assert world.reads == 10


def a_look(**fields):
    """Alice has left the team of the account, once."""
    seen = a_tenancy(resources=(RESOURCE,), tree=a_tree(*provided("alice", "bob"), defaults={"bob": ACCOUNT}))
    given = {"tenancy": seen, "teams": {RESOURCE.uuid: {"bob"}}, "missed": {f"{ACCOUNT}/alice": 1}} | fields
    return Members(**given)


def test_one_who_is_missing_and_stays_yet_is_named():
    plan = plan_members(a_look(), {}, RULES)
    assert plan.changes == []
    assert plan.note == f"not in the team, and out of the account after 3 readings: {ACCOUNT}/alice"
    assert plan_members(a_look(missed={f"{ACCOUNT}/alice": 3}), {}, RULES).note is None


def test_who_is_told_to_leave_leaves_at_once():
    (change,) = plan_members(a_look(), {}, replace(RULES, force=True)).changes
    assert change.after.key == f"{ACCOUNT}/alice"


def test_nobody_stays_where_nobody_may_be():
    closed = a_resource(restrict_member_access=True)
    seen = a_tenancy(resources=(closed,), tree=a_tree(*provided("alice", "bob")))
    plan = plan_members(a_look(tenancy=seen, missed={}, unsure={closed.uuid}), {}, RULES)
    assert [change.after.key for change in plan.changes] == [f"{ACCOUNT}/alice", f"{ACCOUNT}/bob"]


def test_a_name_that_no_command_could_hold_stops_nobody_else():
    odd = a_tree(*provided("alice", "Bob Smith"), Account("-x", "root"))
    resources = (RESOURCE, a_resource(2, backend_id="-x"))
    seen = a_tenancy(resources=resources, tree=odd)
    missed = {f"{ACCOUNT}/alice": 3, f"{ACCOUNT}/Bob Smith": 3}
    look = a_look(tenancy=seen, missed=missed, teams={one.uuid: {"bob"} for one in resources})
    plan = plan_members(look, {}, RULES)
    assert [change.after.key for change in plan.changes] == [ACCOUNT, f"{ACCOUNT}/alice"]
    assert [problem.partition(": ")[0] for problem in plan.problems] == [ACCOUNT, f"resource {resources[1].uuid}"]


def test_a_member_whose_name_the_portal_spells_otherwise_stays():
    plan = plan_members(a_look(teams={RESOURCE.uuid: {"Alice", "bob"}}, missed={f"{ACCOUNT}/alice": 9}), {}, RULES)
    assert plan.changes == []
    assert plan.problems == [f"{ACCOUNT}: 'Alice' is no user name that cvagent gives to Slurm"]


def test_two_resources_with_one_account_take_nobody_out_of_it():
    resources = (RESOURCE, a_resource(2, backend_id=ACCOUNT.upper()))
    seen = a_tenancy(resources=resources, tree=a_tree(*provided("alice", "bob")))
    teams = {one.uuid: {name} for one, name in zip(resources, ("alice", "bob"), strict=True)}
    missed = {f"{ACCOUNT}/{name}": 9 for name in ("alice", "bob")}
    plan = plan_members(a_look(tenancy=seen, teams=teams, missed=missed), {}, RULES)
    assert plan.changes == []
    assert [problem.partition(": ")[2] for problem in plan.problems] == [
        f"{name!r} is another's account too" for name in (ACCOUNT, ACCOUNT.upper())
    ]
