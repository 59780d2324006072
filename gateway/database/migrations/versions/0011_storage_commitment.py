"""storage commitment: of destinations, and to archives

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("delivery", sa.Column("commit_state", sa.String(length=16), server_default="", nullable=False))
    op.add_column("delivery", sa.Column("commit_uid", sa.String(length=64), nullable=True))
    op.add_column("delivery", sa.Column("commit_at", sa.Float(), server_default="0", nullable=False))
    op.add_column("delivery", sa.Column("commit_tries", sa.Integer(), server_default="0", nullable=False))
    op.add_column("delivery", sa.Column("commit_failures", sa.Integer(), server_default="0", nullable=False))
    where = sa.text("commit_state IN ('due', 'asked')")
    columns = ["destination", "commit_state", "commit_at"]
    op.create_index("delivery_uncommitted", "delivery", columns, sqlite_where=where, postgresql_where=where)
    op.create_index("delivery_commitment", "delivery", ["commit_uid"])
    op.create_table(
        "commitment_request",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Float(), nullable=False),
        sa.Column("answered_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("calling_ae", "transaction_uid"),
    )
    op.create_index("commitment_request_work", "commitment_request", ["state", "next_attempt_at"])
    op.create_table(
        "payload_check",
        sa.Column("locator", sa.String(length=32), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("checked_at", sa.Float(), nullable=True),
        sa.Column("result", sa.String(length=64), nullable=True),
        sa.Column("promised_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("locator"),
    )


def downgrade() -> None:
    op.drop_table("payload_check")
    op.drop_table("commitment_request")
    op.drop_index("delivery_commitment", "delivery")
    op.drop_index("delivery_uncommitted", "delivery")
    for column in ("commit_failures", "commit_tries", "commit_at", "commit_uid", "commit_state"):
        op.drop_column("delivery", column)
