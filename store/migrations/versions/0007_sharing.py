"""Devices that several processes share, and runs that need one of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("sharers", sa.Integer(), server_default="1", nullable=False))
    op.add_column("runs", sa.Column("undivided", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("runs", "undivided")
    op.drop_column("attempts", "sharers")
