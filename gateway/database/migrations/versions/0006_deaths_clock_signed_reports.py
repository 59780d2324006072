"""deaths of processes, the site's clock, signed reports; ended originals lose what the index told of them

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.add_column(sa.Column("deaths", sa.Integer(), server_default="0", nullable=False))
        batch_op.drop_index("instance_work")
        batch_op.create_index("instance_work", ["state", "deaths", "received_at"], unique=False)
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.add_column(sa.Column("deaths", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("failing_since", sa.Float(), nullable=True))
        batch_op.drop_index("delivery_work")
        batch_op.create_index("delivery_work", ["destination", "state", "deaths", "id"], unique=False)
    for table, of in (("instance", "state"), ("delivery", "destination")):
        leased = sa.text("lease_owner IS NOT NULL")
        op.create_index(f"{table}_leased", table, [of, "lease_until"], sqlite_where=leased, postgresql_where=leased)
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("stopped_at", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("confirmed", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("protection_report", schema=None) as batch_op:
        batch_op.add_column(sa.Column("document", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("signature", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("signer", sa.String(length=64), nullable=True))
    op.execute(
        "UPDATE vault_record SET attributes = '{}', patient_id = '', study_date = '', accession_number = '',"
        " modality = '' WHERE payload_file IS NULL"
    )


def downgrade() -> None:
    with op.batch_alter_table("protection_report", schema=None) as batch_op:
        for name in ("signer", "signature", "document"):
            batch_op.drop_column(name)
    op.drop_table("clock")
    for table in ("instance", "delivery"):
        op.drop_index(f"{table}_leased", table)
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.drop_index("delivery_work")
        batch_op.create_index("delivery_work", ["destination", "state", "next_attempt_at", "lease_until"], unique=False)
        batch_op.drop_column("failing_since")
        batch_op.drop_column("deaths")
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index("instance_work")
        batch_op.create_index("instance_work", ["state", "next_attempt_at", "lease_until"], unique=False)
        batch_op.drop_column("deaths")
