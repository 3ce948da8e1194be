"""Whose ids an erasure finds, and whose it leaves."""

from collections.abc import Collection

from pipeline_platform.erasure.person import Person, find_person
from pipeline_platform.event.person_ids import Ids


def links(*events: tuple[str | None, ...], also: Collection[str] = (), buried: Collection[str] = ()) -> Person:
    """The person U among events of (user, anonymous, previous)."""
    ids = [Ids(*event) for event in events]
    return find_person(1, "U", lambda wanted: [one for one in ids if set(one) & set(wanted)], also, buried)


def test_whose_ids_they_are() -> None:
    person = links(("U", "phone"), ("U", "kiosk"), ("bob", "kiosk"), (None, "phone"))
    assert (person.users, person.anonymous, person.shared) == ({"U"}, {"phone"}, {"kiosk"})
    assert person.has(Ids(None, "phone")) and not person.has(Ids(None, "kiosk")) and not person.has(Ids("bob", "phone"))


def test_other_users_are_named_with_their_link_and_followed_only_where_the_operator_names_them() -> None:
    events: list[tuple[str | None, ...]] = [
        ("U", None, "old"), ("old", "tablet", "oldest"), (None, "tablet"), ("new", None, "U"), ("oldest",)
    ]  # fmt: skip
    person = links(*events)
    assert (person.users, person.anonymous) == ({"U"}, set())
    assert person.linked == {"old": "alias: old became U", "new": "alias: U became new"}
    both = links(*events, also=["old"])
    assert (both.users, both.anonymous - both.users) == ({"U", "old"}, {"tablet"})
    assert set(both.linked) == {"oldest", "new"}


def test_an_earlier_id_that_is_no_user_is_the_persons_unless_others_claim_it() -> None:
    assert links(("U", None, "old"), (None, "old")).anonymous == {"old"}
    assert links(("U", None, "joint"), ("bob", None, "joint")).shared == {"joint"}


def test_a_claim_on_another_users_id_is_no_reason_to_erase_that_user() -> None:
    claims: list[tuple[str | None, ...]] = [("U", None, "bob"), ("U", "bob"), ("bob",), (None, "bob")]
    person = links(*claims)
    assert (person.users, person.anonymous) == ({"U"}, set())
    assert not person.has(Ids("bob")) and not person.has(Ids(None, "bob"))


def test_ids_of_an_interrupted_run_are_found_without_their_links() -> None:
    assert links((None, "phone"), buried=["phone"]).anonymous == {"phone"}
    assert links((None, "phone"), ("bob", "phone"), buried=["phone"]).anonymous == set()
