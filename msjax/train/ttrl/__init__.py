"""Test-time training without labels: votes, consensus, update, repeat (OptPO)."""
