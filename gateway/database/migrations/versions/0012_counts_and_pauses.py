"""what is final can be counted without looking at every row; destinations can pause

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("instance_received", "instance", ["received_at"])
    final = sa.text("state IN ('delivered', 'discarded')")
    op.create_index("instance_final", "instance", ["route", "state"], sqlite_where=final, postgresql_where=final)
    op.add_column("delivery", sa.Column("route", sa.String(length=32), server_default="", nullable=False))
    op.execute("UPDATE delivery SET route = (SELECT route FROM instance WHERE instance.id = delivery.instance_id)")
    sent = sa.text("state IN ('sent')")
    columns = ["route", "destination", "sent_at"]
    op.create_index("delivery_sent", "delivery", columns, sqlite_where=sent, postgresql_where=sent)
    op.create_table(
        "paused_destination",
        sa.Column("destination", sa.String(length=32), nullable=False),
        sa.Column("paused_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("destination"),
    )


def downgrade() -> None:
    op.drop_table("paused_destination")
    op.drop_index("delivery_sent", "delivery")
    op.drop_column("delivery", "route")
    op.drop_index("instance_final", "instance")
    op.drop_index("instance_received", "instance")
