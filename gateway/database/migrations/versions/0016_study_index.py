"""the index by study holds what a retrieval and C-FIND ask of each instance, so that they read no rows

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_COLUMNS = [
    "study_uid",
    "original_series_uid",
    "created_at",
    "locator",
    "original_sop_uid",
    "generation",
    "payload_file",
]


def upgrade() -> None:
    op.drop_index("vault_study", "vault_record")
    op.create_index("vault_study", "vault_record", _COLUMNS)


def downgrade() -> None:
    op.drop_index("vault_study", "vault_record")
    op.create_index("vault_study", "vault_record", ["study_uid"])
