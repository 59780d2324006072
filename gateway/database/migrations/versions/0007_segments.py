"""segments of the spool

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spool_segment",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("rows_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("instance_spool", "instance", ["spool_file"])


def downgrade() -> None:
    op.drop_index("instance_spool", "instance")
    op.drop_table("spool_segment")
