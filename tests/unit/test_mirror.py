"""What the mirror knows of MLflow without asking."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from workers.mirror import LEASE, Lead

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_what_began_late_in_a_lead_nobody_else_has_written() -> None:
    lead = Lead()
    assert not lead.covers(START)
    lead.renew(START)
    assert not lead.covers(START - SECOND)
    assert not lead.covers(START + LEASE)  # whoever led before may still be about it
    assert lead.covers(START + LEASE + SECOND)


def test_a_lead_with_a_gap_begins_anew() -> None:
    lead, second = Lead(), START + LEASE
    lead.renew(START)
    lead.renew(second)
    assert lead.covers(second + SECOND)
    lead.renew(second + LEASE + SECOND)
    assert not lead.covers(second + SECOND)
