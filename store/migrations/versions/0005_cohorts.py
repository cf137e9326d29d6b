"""Runs that train together, and what is measured of trainings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("shape", sa.String(64), nullable=True))
    op.create_index("ix_runs_sweep_id_shape_state", "runs", ["sweep_id", "shape", "state"])
    op.add_column("attempts", sa.Column("members", sa.Integer(), server_default="1", nullable=False))
    op.add_column("attempts", sa.Column("device", sa.String(), nullable=True))
    op.add_column("attempts", sa.Column("memory", sa.Double(), nullable=True))
    op.add_column("timings", sa.Column("kind", sa.String(), server_default="gpt", nullable=False))
    op.add_column("timings", sa.Column("members", sa.Integer(), server_default="1", nullable=False))
    op.add_column("timings", sa.Column("memory", sa.Double(), nullable=True))


def downgrade() -> None:
    for column in ("memory", "members", "kind"):
        op.drop_column("timings", column)
    for column in ("memory", "device", "members"):
        op.drop_column("attempts", column)
    op.drop_index("ix_runs_sweep_id_shape_state", "runs")
    op.drop_column("runs", "shape")
