"""Who may act: organisations, their keys, people, sessions, and what was already said."""

from sqlmodel import Field, SQLModel

from clearinghouse.store.tables.base import check


class OrgRow(SQLModel, table=True):
    """An organisation and the key that signs for it now."""

    __tablename__ = "org"
    id: str = Field(primary_key=True)
    name: str
    role: str
    key_id: str = Field(unique=True)
    public_key: str
    age_recipient: str | None = None
    suspended: str = ""


class OrgKeyRow(SQLModel, table=True):
    """A key an organisation has or had; `added` and `revoked` are ids of log entries."""

    __tablename__ = "org_key"
    __table_args__ = (check("revoked IS NULL OR revoked > added", "order"),)
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    public_key: str
    added: int
    revoked: int | None = None


class ApiKeyRow(SQLModel, table=True):
    """A bearer token for reading: its public beginning and the SHA-256 of the whole."""

    __tablename__ = "api_key"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="org.id", index=True)
    name: str
    prefix: str = Field(unique=True)
    digest: str
    scopes: str
    created: int
    expires: int
    revoked: int | None = None
    last_used: int | None = None


class PersonRow(SQLModel, table=True):
    """A person who may look at an organisation's part of the console."""

    __tablename__ = "person"
    org_id: str = Field(primary_key=True, foreign_key="org.id")
    email: str = Field(primary_key=True, index=True)


class SessionRow(SQLModel, table=True):
    """A person's session in the console, by the SHA-256 of its cookie's token."""

    __tablename__ = "session"
    digest: str = Field(primary_key=True)
    email: str
    org_id: str = Field(foreign_key="org.id")
    expires: int = Field(index=True)


class NonceRow(SQLModel, table=True):
    """A nonce seen in a signed, state-changing call."""

    __tablename__ = "nonce"
    key_id: str = Field(primary_key=True)
    nonce: str = Field(primary_key=True)
    expires: int = Field(index=True)


class ReplyRow(SQLModel, table=True):
    """The stored answer to an idempotent call."""

    __tablename__ = "reply"
    org_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    digest: str
    body: str
