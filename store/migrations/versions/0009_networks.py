"""Calibrations of networks of the user's: of which code, and why they are not stacked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("timings", sa.Column("code", sa.String(), nullable=True))
    op.add_column("timings", sa.Column("refused", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("timings", "refused")
    op.drop_column("timings", "code")
