"""protection reports: figures of each marked copy, and which reports were made of them

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mark_figures",
        sa.Column("locator", sa.String(length=32), nullable=False),
        sa.Column("route", sa.String(length=32), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("psnr", sa.Float(), nullable=False),
        sa.Column("psnr_windows", sa.JSON(), nullable=False),
        sa.Column("region_share", sa.Float(), nullable=False),
        sa.Column("stroke_share", sa.Float(), nullable=False),
        sa.Column("roi_share", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("locator"),
    )
    op.create_table(
        "protection_report",
        sa.Column("route", sa.String(length=32), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.String(length=32), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("copies_sha256", sa.String(length=64), nullable=False),
        sa.Column("last_marked_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("route", "study_uid", "number"),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index("instance_marked", ["route", "marked_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index("instance_marked")
    op.drop_table("protection_report")
    op.drop_table("mark_figures")
