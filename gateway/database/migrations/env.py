"""Alembic environment: runs on the connection that `gateway.database.migrate` hands over."""

from alembic import context

from gateway.database.tables import Base

connection = context.config.attributes["connection"]
applied = context.config.attributes.get("applied")  # told after each revision
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, on_version_apply=applied)
with context.begin_transaction():
    context.run_migrations()
