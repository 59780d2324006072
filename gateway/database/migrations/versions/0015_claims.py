"""claims in a narrow table, so that no index holds leases; indexes of what C-FIND asks for beside the common case

Revision ID: 0015
Revises: 0014
"""

import secrets
from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TABLES = {"instance": ("state", ""), "delivery": ("destination", "to:")}
_SEVERAL = {"vault_patients": "patient_id", "vault_accessions": "accession_number"}
_ROOM = 50  # per cent of a page that new rows fill: the rest is for their next versions, of which then no index is told


def upgrade() -> None:
    claim = op.create_table(
        "claim",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("taken", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("claim_until", "claim", ["kind", "until"])
    for table, (of, prefix) in _TABLES.items():
        taken: dict[tuple[str, str], list] = defaultdict(list)
        until: dict[tuple[str, str], float] = {}
        leases = f"SELECT {of}, lease_owner, lease_until, id FROM {table} WHERE lease_owner IS NOT NULL"  # noqa: S608
        for kind, owner, its_until, row in op.get_bind().execute(sa.text(leases)):
            taken[kind, owner].append(row)
            until[kind, owner] = min(its_until, until.get((kind, owner), its_until))
        rows = [
            {
                "id": secrets.token_hex(16),
                "kind": f"{prefix}{kind}",
                "owner": owner,
                "until": until[kind, owner],
                "taken": some,
            }
            for (kind, owner), some in taken.items()
        ]
        if rows:
            op.bulk_insert(claim, rows)
        op.drop_index(f"{table}_leased", table)
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"ALTER TABLE {table} SET (fillfactor = {_ROOM})")
    op.drop_index("delivery_commitment", "delivery")
    there = sa.text("commit_uid IS NOT NULL")
    op.create_index("delivery_commitment", "delivery", ["commit_uid"], sqlite_where=there, postgresql_where=there)
    for name, column in _SEVERAL.items():
        several = sa.text(f"substr({column}, 1, 1) = '\\'")
        op.create_index(name, "vault_record", [column], sqlite_where=several, postgresql_where=several)
    op.drop_index("vault_derived_study", "vault_record")
    new = sa.text("derived_study_uid <> ''")
    columns = ["derived_study_uid"]
    op.create_index("vault_derived_study", "vault_record", columns, sqlite_where=new, postgresql_where=new)


def downgrade() -> None:
    op.drop_index("vault_derived_study", "vault_record")
    op.create_index("vault_derived_study", "vault_record", ["derived_study_uid"])
    for name in _SEVERAL:
        op.drop_index(name, "vault_record")
    op.drop_index("delivery_commitment", "delivery")
    op.create_index("delivery_commitment", "delivery", ["commit_uid"])
    for table, (of, _) in _TABLES.items():
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"ALTER TABLE {table} RESET (fillfactor)")
        leased = sa.text("lease_owner IS NOT NULL")
        op.create_index(f"{table}_leased", table, [of, "lease_until"], sqlite_where=leased, postgresql_where=leased)
    op.drop_table("claim")
