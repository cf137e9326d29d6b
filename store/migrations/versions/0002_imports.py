"""Observations that no run of the sweep gave: each row of a file once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("observations", sa.Column("digest", sa.String(length=64), nullable=True))
    op.create_index(
        op.f("ix_observations_sweep_id_digest"), "observations", ["sweep_id", "digest"], unique=True
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_observations_sweep_id_digest"), table_name="observations")
    op.drop_column("observations", "digest")
