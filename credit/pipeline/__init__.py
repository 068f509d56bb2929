"""The commands as functions: the only place where valuation, accounting and ledger meet.

ingest ─▶ ledger.outputs ─▶ compute (valuation ▶ credits ▶ score book ▶ journal) ─▶ close (pools ▶ statements ▶ journal)
"""
