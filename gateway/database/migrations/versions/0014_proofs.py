"""who asks at the page may be known by the token of an identity provider

Revision ID: 0014
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("page_request") as table:
        table.alter_column("user_name", type_=sa.String(length=96), existing_type=sa.String(length=32))
        table.add_column(sa.Column("proof", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    op.execute("DELETE FROM page_request WHERE length(user_name) > 32")  # an older release cannot hold them
    with op.batch_alter_table("page_request") as table:
        table.drop_column("proof")
        table.alter_column("user_name", type_=sa.String(length=32), existing_type=sa.String(length=96))
