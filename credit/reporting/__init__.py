"""What people read: attribution and payouts as tables, CSV, JSON and HTML, and each provider's export."""
