DROP TRIGGER ledger_txn_insert

CREATE TRIGGER ledger_txn_insert BEFORE INSERT ON ledger_txn
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: the period is closed')
    WHERE EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed');
  SELECT RAISE(ABORT, 'credit refuses: the number of entries is not entry_count')
    WHERE (SELECT count(*) FROM ledger_entry WHERE txn_id = NEW.id) <> NEW.entry_count;
  SELECT RAISE(ABORT, 'credit refuses: the entries do not sum to zero in every commodity')
    WHERE EXISTS (SELECT 1 FROM ledger_entry WHERE txn_id = NEW.id GROUP BY commodity HAVING sum(amount / 4294967296) + sum(amount % 4294967296) / 4294967296 <> 0 OR sum(amount % 4294967296) % 4294967296 <> 0);
  SELECT RAISE(ABORT, 'credit refuses: seq does not follow the last transaction')
    WHERE NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM ledger_txn);
  SELECT RAISE(ABORT, 'credit refuses: prev_hash is not the hash of the last transaction')
    WHERE NEW.prev_hash <> coalesce((SELECT hash FROM ledger_txn ORDER BY seq DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000');
  SELECT RAISE(ABORT, 'credit refuses: recorded_at is before that of the last transaction')
    WHERE NEW.recorded_at < (SELECT recorded_at FROM ledger_txn ORDER BY seq DESC LIMIT 1);
  SELECT RAISE(ABORT, 'credit refuses: there is no such transaction to reverse')
    WHERE NEW.reverses_txn_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.reverses_txn_id);
  SELECT RAISE(ABORT, 'credit refuses: the transaction has been reversed before')
    WHERE NEW.reverses_txn_id IS NOT NULL AND EXISTS (SELECT 1 FROM ledger_txn WHERE reverses_txn_id = NEW.reverses_txn_id);
  SELECT RAISE(ABORT, 'credit refuses: a reversal must negate every entry of what it reverses')
    WHERE NEW.reverses_txn_id IS NOT NULL AND (NEW.entry_count <> (SELECT entry_count FROM ledger_txn WHERE id = NEW.reverses_txn_id) OR EXISTS (SELECT 1 FROM ledger_entry AS n JOIN ledger_entry AS o ON o.txn_id = NEW.reverses_txn_id AND o.line_no = n.line_no WHERE n.txn_id = NEW.id AND (n.account_id <> o.account_id OR n.commodity <> o.commodity OR n.amount <> -o.amount)));
  SELECT RAISE(ABORT, 'credit refuses: this row of ledger_txn exists already')
    WHERE EXISTS (SELECT 1 FROM ledger_txn WHERE hash = NEW.hash) OR EXISTS (SELECT 1 FROM ledger_txn WHERE idempotency_key = NEW.idempotency_key);
END
