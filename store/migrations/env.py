"""Runs migrations on the connection (and inside the transaction) that ``store.db.migrate`` hands over.

A new revision is a file in ``versions`` whose ``down_revision`` is the last one's name. The test of the
schema says what it still lacks to agree with the models.
"""

from __future__ import annotations

from alembic import context

from store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
