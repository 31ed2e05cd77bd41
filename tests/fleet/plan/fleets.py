"""Small fleets for tests, made by hypothesis."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from armferry.fleet.plan.model import (
    NO_WAY,
    Limits,
    PlanFleet,
    PlanGuest,
    PlanHost,
    Scope,
    Way,
    Ways,
)

CLASSES = ("old", "odd", "new")


@dataclass(frozen=True)
class Case:
    """What a plan is asked for; printed whole by a test that fails."""

    fleet: PlanFleet
    table: dict[tuple[str, str, str], Way]
    limits: Limits

    @property
    def ways(self) -> Ways:
        return lambda *key: self.table.get(key, NO_WAY)


WAYS = st.one_of(
    st.just(Way(True)),
    st.just(Way(True)),
    st.just(NO_WAY),
    st.builds(
        Way,
        st.just(True),
        st.booleans(),
        st.sets(st.sampled_from(["e1", "e2"]), max_size=2).map(frozenset),
        st.sets(st.just("TCR2_EL1 holds 0x0"), max_size=1).map(frozenset),
        st.booleans(),
    ),
)


@st.composite
def cases(draw: st.DrawFn, hosts: int, guests: int) -> Case:
    """A fleet of up to `hosts` and `guests`, not one symmetric or friendly thing about it."""
    count = draw(st.integers(1, hosts))
    builds = st.sampled_from(CLASSES[:2])
    made = tuple(
        PlanHost(
            f"h{n}",
            draw(builds),
            draw(st.sampled_from(["new", "new", "new", None])),
            draw(st.integers(2, 4)),
            draw(st.sampled_from(["", "d1", "d2"])),
        )
        for n in range(count)
    )
    names = [host.name for host in made]
    pins = st.sets(st.sampled_from([*names, "d1", "d2"]), min_size=1, max_size=3).map(frozenset)
    scope = draw(st.sampled_from(Scope))
    likes = [
        PlanGuest(
            "",
            "",
            draw(builds),
            draw(st.integers(1, 2)),
            draw(st.sampled_from(["", "", "k"])),
            draw(st.one_of(st.just(frozenset()), st.just(frozenset()), pins)),
            draw(st.one_of(st.just(frozenset()), st.just(frozenset()), pins)),
            draw(st.sampled_from(["", "", "g"])),
            scope,
            draw(st.sets(st.just("TCR2_EL1 holds 0x0"), max_size=1).map(frozenset)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    placed = []
    for n in range(draw(st.integers(0, guests))):
        like = draw(st.sampled_from(likes))
        host = draw(st.sampled_from(names))
        kept = like.scope if like.apart else Scope.HOST
        placed.append(replace(like, name=f"g{n}", host=host, scope=kept))
    named = draw(st.booleans())
    classes = (
        {
            "old": {"": "old", "k": "odd"},
            "new": {"": "new", **draw(st.sampled_from([{}, {"k": "new"}]))},
        }
        if named
        else {}
    )
    keys = [(b, p, d) for b in CLASSES for p in CLASSES for d in CLASSES]
    if draw(st.booleans()):
        table = dict(zip(keys, draw(st.lists(WAYS, min_size=27, max_size=27)), strict=True))
    else:
        # as a real fleet: most moves go, and some do not come back
        table = dict.fromkeys(keys, Way(True)) | draw(
            st.dictionaries(st.sampled_from(keys), WAYS, max_size=6)
        )
    limits = Limits(draw(st.integers(1, 3)), draw(st.integers(0, 1)), draw(st.booleans()))
    return Case(PlanFleet(made, tuple(placed), classes), table, limits)
