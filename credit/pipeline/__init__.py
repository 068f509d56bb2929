"""The commands as functions: the only place where valuation, accounting and ledger meet.

ingest ─▶ ledger.outputs ─▶ compute (valuation ▶ credits ▶ score book ▶ journal) ─▶ close (pools ▶ statements ▶ journal)

Read in this order:

1. `workspace` (the place of a ledger and its files), `status`; `engine` (who does the work with models).
2. Files: `ingest` (providers and rates), `contracts`, `data_check`, `index` with `tokenised`, `known_files`
   with `ingest_outputs`.
3. Credits: `compute`, whose workers do `valuing`, and `compute_plan`; `validate`, `purge`.
4. A close: `close`, with `certification`, `reviews`, `period_basis`, `close_pools` and `close_balances`; `restate`.
5. Explanations: `explain_output`, and `explain_payout` with `explain_balances`.
"""
