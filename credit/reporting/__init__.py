"""Reports: attribution and payouts as tables, CSV, JSON and HTML; statements; each provider's export; books."""
