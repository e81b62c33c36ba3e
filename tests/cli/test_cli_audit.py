from pathlib import Path

import stores
from processsite import SITE, Site, execbroker


def change(site: Site, statement: str) -> None:
    assert stores.execute(site.data, statement)


def test_the_audit_of_a_broker_that_works_and_of_one_that_does_not(own_broker: Site) -> None:
    own_broker.settings = {"platforms": [{name: value for name, value in SITE.items() if name != "lasts"}]}
    site = own_broker.start()
    asked = site("ask", "--notebook", "https://example.org/a.ipynb", "--cores", "2-2", "--json").document
    first = asked["offers"][0]["meta"]["uuid"]
    assert site("accept", first).code == 0
    done = site("audit")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "1 hold looked at: nothing is wrong"

    change(site, "UPDATE bookings SET cores = cores + 1")
    done = site("audit")
    assert done.code == 1
    first_line, error, *_ = done.out.splitlines()
    assert first_line == "1 hold looked at, 1 thing is wrong:"
    assert error.startswith(f"  ERROR session {first}: 3 cores are held of site, node site-1, at ")
    assert error.endswith(", where its schedule says 2")

    code, _, said = site.stop()
    assert code == 0, said
    change(site, "DELETE FROM sessions")
    done = site("audit", "--json")
    assert done.code == 1
    assert done.document["holds"] == 1
    (error,) = done.document["errors"]
    assert error["kind"] == "urn:execbroker:message:stray-hold"
    assert error["values"]["holder"] == first
    assert error["message"].endswith("which is no session, and no offerset with open offers")


def test_the_broker_starts_all_the_same_and_its_log_says_what_is_wrong(own_broker: Site) -> None:
    site = own_broker.start()
    assert site("ask", "--notebook", "https://example.org/a.ipynb").code == 0
    site.stop()
    change(site, "UPDATE sessions SET phase = 'REJECTED'")
    site.start()
    assert site("ps").code == 0
    _, _, said = site.stop()
    assert '"event": "audit.found"' in said
    assert "held from" in said


def test_without_a_ledger_there_is_nothing_to_audit(tmp_path: Path) -> None:
    done = execbroker("audit", "--data", str(tmp_path))
    assert done.code == 2
    assert done.err == f"execbroker: {tmp_path}/ledger.sqlite is no broker's database: name the data folder of one with --data\n"
    assert list(tmp_path.iterdir()) == []
