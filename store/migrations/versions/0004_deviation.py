"""Observations that are forecasts: how far the loss may be off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "observations", sa.Column("deviation", sa.Double(), server_default=sa.text("0"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("observations", "deviation")
