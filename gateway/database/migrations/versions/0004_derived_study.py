"""the Study Instance UID of copies, where it is not the original's

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("vault_record", schema=None) as batch_op:
        batch_op.add_column(sa.Column("derived_study_uid", sa.String(length=64), server_default="", nullable=False))
        batch_op.create_index("vault_derived_study", ["derived_study_uid"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("vault_record", schema=None) as batch_op:
        batch_op.drop_index("vault_derived_study")
        batch_op.drop_column("derived_study_uid")
