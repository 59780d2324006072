"""fencing tokens of leases, and the key by which instances are marked together

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("instance", "delivery"):
        op.add_column(table, sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("instance", sa.Column("batch_key", sa.String(length=64), server_default="", nullable=False))
    where = sa.text("state = 'sealed'")
    columns = ["batch_key", "deaths", "received_at"]
    op.create_index("instance_batch", "instance", columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("instance_batch", "instance")
    op.drop_column("instance", "batch_key")
    for table in ("delivery", "instance"):
        op.drop_column(table, "lease_token")
