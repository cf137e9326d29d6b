"""Runs that begin from a checkpoint of another one, and which checkpoints there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As text: Alembic adds no foreign key to a table of SQLite, which itself can.
    op.execute(
        "ALTER TABLE runs ADD COLUMN parent_id INTEGER CONSTRAINT fk_runs_parent_id REFERENCES runs (id)"
    )
    op.add_column("runs", sa.Column("parent_step", sa.BigInteger(), nullable=True))
    op.create_table(
        "trunks",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_trunks_run_id"),
        sa.PrimaryKeyConstraint("run_id", "step", name="pk_trunks"),
    )


def downgrade() -> None:
    op.drop_table("trunks")
    op.drop_column("runs", "parent_step")
    op.drop_column("runs", "parent_id")
