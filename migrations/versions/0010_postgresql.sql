ALTER TABLE account DROP CONSTRAINT ck_account_kind

ALTER TABLE account ADD CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx', 'credits:unvalued', 'money:held'))

ALTER TABLE hold ADD COLUMN collection TEXT COLLATE "C" CONSTRAINT ck_hold_collection CHECK (collection IS NULL OR (length(collection) >= 1 AND currency IS NULL))

DROP TRIGGER hold_insert ON hold

DROP FUNCTION hold_insert()

CREATE FUNCTION hold_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.action = coalesce((SELECT action FROM hold WHERE provider_id = NEW.provider_id AND coalesce(currency, '') = coalesce(NEW.currency, '') AND coalesce(collection, '') = coalesce(NEW.collection, '') ORDER BY id DESC LIMIT 1), 'release') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a hold and its release take turns';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER hold_insert BEFORE INSERT ON hold FOR EACH ROW EXECUTE FUNCTION hold_insert()

DROP TRIGGER ledger_txn_insert ON ledger_txn

DROP FUNCTION ledger_txn_insert()

CREATE FUNCTION ledger_txn_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM period WHERE id = NEW.period_id FOR SHARE;
  IF EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed';
  END IF;
  IF (SELECT count(*) FROM ledger_entry WHERE txn_id = NEW.id) <> NEW.entry_count THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the number of entries is not entry_count';
  END IF;
  IF EXISTS (SELECT 1 FROM ledger_entry WHERE txn_id = NEW.id GROUP BY commodity HAVING sum(amount / 4294967296) + sum(amount % 4294967296) / 4294967296 <> 0 OR sum(amount % 4294967296) % 4294967296 <> 0) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the entries do not sum to zero in every commodity';
  END IF;
  IF NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM ledger_txn) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: seq does not follow the last transaction';
  END IF;
  IF NEW.prev_hash <> coalesce((SELECT hash FROM ledger_txn ORDER BY seq DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: prev_hash is not the hash of the last transaction';
  END IF;
  IF NEW.recorded_at < (SELECT recorded_at FROM ledger_txn ORDER BY seq DESC LIMIT 1) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: recorded_at is before that of the last transaction';
  END IF;
  IF NEW.reverses_txn_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.reverses_txn_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: there is no such transaction to reverse';
  END IF;
  IF NEW.reverses_txn_id IS NOT NULL AND EXISTS (SELECT 1 FROM ledger_txn WHERE reverses_txn_id = NEW.reverses_txn_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the transaction has been reversed before';
  END IF;
  IF NEW.reverses_txn_id IS NOT NULL AND (NEW.entry_count <> (SELECT entry_count FROM ledger_txn WHERE id = NEW.reverses_txn_id) OR EXISTS (SELECT 1 FROM ledger_entry AS n JOIN ledger_entry AS o ON o.txn_id = NEW.reverses_txn_id AND o.line_no = n.line_no WHERE n.txn_id = NEW.id AND (n.account_id <> o.account_id OR n.commodity <> o.commodity OR n.amount <> -o.amount))) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a reversal must negate every entry of what it reverses';
  END IF;
  IF NEW.kind = 'collection-release' AND EXISTS (SELECT 1 FROM ledger_entry AS e JOIN account AS a ON a.id = e.account_id AND a.kind = 'money:held' WHERE e.txn_id = NEW.id AND (SELECT h.action FROM hold AS h WHERE h.provider_id = a.provider_id AND h.collection = a.collection ORDER BY h.id DESC LIMIT 1) = 'hold') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: what a collection earned stays where it is while it is on hold';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER ledger_txn_insert BEFORE INSERT ON ledger_txn FOR EACH ROW EXECUTE FUNCTION ledger_txn_insert()
