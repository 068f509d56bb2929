"""Reports: attribution and payouts as tables, CSV, JSON and HTML; statements; each provider's export; books.

Read in this order: `frames` (the numbers of every report), `causes` (users, prompts and days behind a provider's
credits), `tables` (text), `charts`, `pages` and `site` (HTML), `signatures` and `export` (signed folders),
`chart_of_accounts` and `books` (journal, trial balance, beancount), `workbook` (a period as XLSX), `year`
(payments by provider).
"""
