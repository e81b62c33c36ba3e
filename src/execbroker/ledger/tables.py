from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

# Times are whole seconds since 1970, sizes GiB, uuids their canonical text, documents JSON text: all cheap on every store.
metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})

offersets = Table(
    "offersets",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("modified", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("result", String(3), nullable=False),
    Column("request", Text, nullable=False),
    Column("messages", Text, nullable=False),
    Index(None, "created"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("offerset", String(36), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("phase", String(12), nullable=False),
    Column("outcome", String(12)),
    Column("created", BigInteger, nullable=False),
    Column("modified", BigInteger, nullable=False),
    Column("version", Integer, nullable=False, default=0),
    Column("expires", BigInteger, nullable=False),
    Column("slot", Text),
    Column("state", Text, nullable=False, default="{}"),
    Column("secret", String(64), nullable=False),
    Column("due", BigInteger),
    Column("leased_until", BigInteger),
    Column("lease", String(36)),
    Column("quote", Text),
    Column("groups", Text),
    Index(None, "offerset"),
    Index(None, "phase", "expires"),
    Index(None, "due"),
    Index(None, "created"),
)

# Without a kind a row is cores, memory and storage of one node, or, where `node` is "", of what a platform's nodes share;
# with a kind it is a `count` of that kind.
bookings = Table(
    "bookings",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("holder", String(36), nullable=False),
    Column("platform", String(64), nullable=False),
    Column("node", String(255), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory", Integer, nullable=False),
    Column("storage", BigInteger, nullable=False),
    Column("kind", String(64)),
    Column("count", Integer, nullable=False, server_default="0"),
    Index(None, "holder"),
    Index(None, "end"),
)

# What the same places have, the kind "" where a booking has none; `shrunk` since when that is less than what is held there.
capacities = Table(
    "capacities",
    metadata,
    Column("platform", String(64), primary_key=True),
    Column("node", String(255), primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("cores", Integer, nullable=False, server_default="0"),
    Column("memory", Integer, nullable=False, server_default="0"),
    Column("storage", BigInteger, nullable=False, server_default="0"),
    Column("count", Integer, nullable=False, server_default="0"),
    Column("shrunk", BigInteger),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("session", String(36), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("phase", String(12), nullable=False),
    Column("message", Text),
    Column("schedule", Text),
    Index(None, "session"),
)

# Up to which number events of an owner have been deleted; the highest counts.
forgotten = Table(
    "forgotten",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("owner", String(255), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Index(None, "owner", "seq"),
)

# Who is told of the events of an offerset's sessions. `events` is a JSON list of what they want, all without it; `position` the
# last event that they were told of, or that is not for them; `due` when there is something to tell them, or to try again.
callbacks = Table(
    "callbacks",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("offerset", String(36), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", Text),
    Column("secret", String(64), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due", BigInteger),
    Column("leased_until", BigInteger),
    Column("lease", String(36)),
    Column("failure", Text),
    Column("ended", String(12)),
    Index(None, "offerset"),
    Index(None, "ended", "due"),
)

# One row for each transaction of a broker that shares its database with others, numbered without a gap; `writer` is a name of
# that transaction's own. `changed` is JSON: `holders` whose bookings are others than before, `platforms` whose capacity is.
journal = Table(
    "journal",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("writer", String(36), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("changed", Text, nullable=False),
)

# `issuer` is "" for the broker's own accounts, `secret` the hash of their password; `groups` is a JSON list of their names.
identities = Table(
    "identities",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("secret", Text),
    Column("groups", Text, nullable=False, server_default="[]"),
    Column("created", BigInteger, nullable=False),
    Column("disabled", BigInteger),
    Index(None, "issuer", "subject", unique=True),
)

measures = Table(
    "measures",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("what", String(255), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("amount", Float, nullable=False),
    Column("time", BigInteger, nullable=False),
)

# What was answered under an Idempotency-Key: `made` is the uuid of what was made; the reply is there once it is known.
replies = Table(
    "replies",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("route", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("made", String(36)),
    Column("status", Integer),
    Column("headers", Text),
    Column("body", Text),
    Index(None, "created"),
)

# What ended sessions have used of a platform, in core-seconds, by the first second of each month that they ran in. It is kept for
# as long as the month lasts, whatever becomes of the session. `groups` is JSON, as with sessions.
usage = Table(
    "usage",
    metadata,
    Column("session", String(36), primary_key=True),
    Column("month", BigInteger, primary_key=True),
    Column("platform", String(64), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("groups", Text),
    Column("core_seconds", BigInteger, nullable=False),
    Index(None, "month"),
)
