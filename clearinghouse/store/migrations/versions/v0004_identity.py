"""Organisations' keys by log index, API keys, people and sessions, uploads by organisation."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "org_key",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("public_key", TEXT, nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("revoked IS NULL OR revoked > added", name=op.f("ck_org_key_order")),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_org_key_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_org_key")),
    )
    op.create_index(op.f("ix_org_key_org_id"), "org_key", ["org_id"])
    op.create_table(
        "api_key",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("prefix", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.Column("last_used", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_api_key_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_key_prefix")),
    )
    op.create_index(op.f("ix_api_key_org_id"), "api_key", ["org_id"])
    op.create_table(
        "person",
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("email", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_person_org_id")),
        sa.PrimaryKeyConstraint("org_id", "email", name=op.f("pk_person")),
    )
    op.create_index(op.f("ix_person_email"), "person", ["email"])
    op.create_table(
        "session",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("email", TEXT, nullable=False),
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_session_org_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_session")),
    )
    op.create_index(op.f("ix_session_expires"), "session", ["expires"])
    op.create_table(
        "upload",
        sa.Column("org_id", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("size >= 0", name=op.f("ck_upload_size")),
        sa.ForeignKeyConstraint(
            ["digest"], ["blob.digest"], name=op.f("fk_upload_digest"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["org_id"], ["org.id"], name=op.f("fk_upload_org_id")),
        sa.PrimaryKeyConstraint("org_id", "digest", name=op.f("pk_upload")),
    )
    _fill_keys()
    # Until now nobody noted who uploaded; a reader of a delivery is counted like its sender.
    op.execute(
        "INSERT INTO upload (org_id, digest, size) SELECT blob_access.org_id, blob.digest, "
        "blob.size FROM blob_access JOIN blob ON blob.digest = blob_access.digest"
    )


def _fill_keys() -> None:
    """Every organisation has the one key it registered with, at the index of that entry."""
    connection = op.get_bind()
    added = {}
    for position, body in connection.execute(sa.text("SELECT position, body FROM entry")):
        entry = json.loads(bytes(body))
        if entry.get("type") == "org.registered":
            added[entry["key"]] = position
    orgs = connection.execute(sa.text("SELECT id, key_id, public_key FROM org")).all()
    for org_id, key_id, public_key in orgs:
        connection.execute(
            sa.text(
                "INSERT INTO org_key (id, org_id, public_key, added) VALUES (:id, :org, :key, :at)"
            ),
            {"id": key_id, "org": org_id, "key": public_key, "at": added.get(key_id, 0)},
        )


def downgrade() -> None:
    """Change them back; keys that were added since are forgotten, the newest one stays."""
    op.drop_table("upload")
    op.drop_index(op.f("ix_session_expires"), table_name="session")
    op.drop_table("session")
    op.drop_index(op.f("ix_person_email"), table_name="person")
    op.drop_table("person")
    op.drop_index(op.f("ix_api_key_org_id"), table_name="api_key")
    op.drop_table("api_key")
    op.drop_index(op.f("ix_org_key_org_id"), table_name="org_key")
    op.drop_table("org_key")
