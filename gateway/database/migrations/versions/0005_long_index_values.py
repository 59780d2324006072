"""index columns wide enough for values that are longer than their VR allows

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WIDTHS = {"patient_id": 64, "accession_number": 16}


def upgrade() -> None:
    with op.batch_alter_table("vault_record", schema=None) as batch_op:
        for name, width in WIDTHS.items():
            batch_op.alter_column(
                name, existing_type=sa.String(length=width), type_=sa.String(length=512), existing_nullable=False
            )


def downgrade() -> None:
    with op.batch_alter_table("vault_record", schema=None) as batch_op:
        for name, width in WIDTHS.items():
            batch_op.alter_column(
                name, existing_type=sa.String(length=512), type_=sa.String(length=width), existing_nullable=False
            )
