CREATE TABLE account_0009 AS SELECT * FROM account

PRAGMA defer_foreign_keys = ON

DROP TABLE account

CREATE TABLE account (
	id INTEGER NOT NULL CONSTRAINT ck_account_id CHECK (id >= 1),
	"key" TEXT NOT NULL CONSTRAINT ck_account_key CHECK (length(key) >= 1),
	kind TEXT NOT NULL CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx', 'credits:unvalued', 'money:held')),
	provider_id INTEGER,
	collection TEXT,
	CONSTRAINT pk_account PRIMARY KEY (id),
	CONSTRAINT uq_account_key UNIQUE ("key"),
	CONSTRAINT fk_account_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

INSERT INTO account SELECT id, key, kind, provider_id, collection FROM account_0009

DROP TABLE account_0009

CREATE INDEX ix_account_provider_id ON account (provider_id)

CREATE TRIGGER account_delete BEFORE DELETE ON account
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of account may be deleted');
END

CREATE TRIGGER account_insert BEFORE INSERT ON account
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of account exists already')
    WHERE EXISTS (SELECT 1 FROM account WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM account WHERE key = NEW.key);
END

CREATE TRIGGER account_update BEFORE UPDATE ON account
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: account is append-only: no row may be changed');
END

ALTER TABLE hold ADD COLUMN collection TEXT CONSTRAINT ck_hold_collection CHECK (collection IS NULL OR (length(collection) >= 1 AND currency IS NULL))

DROP TRIGGER hold_insert

CREATE TRIGGER hold_insert BEFORE INSERT ON hold
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a hold and its release take turns')
    WHERE NEW.action = coalesce((SELECT action FROM hold WHERE provider_id = NEW.provider_id AND coalesce(currency, '') = coalesce(NEW.currency, '') AND coalesce(collection, '') = coalesce(NEW.collection, '') ORDER BY id DESC LIMIT 1), 'release');
  SELECT RAISE(ABORT, 'credit refuses: this row of hold exists already')
    WHERE EXISTS (SELECT 1 FROM hold WHERE id = NEW.id);
END

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
  SELECT RAISE(ABORT, 'credit refuses: what a collection earned stays where it is while it is on hold')
    WHERE NEW.kind = 'collection-release' AND EXISTS (SELECT 1 FROM ledger_entry AS e JOIN account AS a ON a.id = e.account_id AND a.kind = 'money:held' WHERE e.txn_id = NEW.id AND (SELECT h.action FROM hold AS h WHERE h.provider_id = a.provider_id AND h.collection = a.collection ORDER BY h.id DESC LIMIT 1) = 'hold');
  SELECT RAISE(ABORT, 'credit refuses: this row of ledger_txn exists already')
    WHERE EXISTS (SELECT 1 FROM ledger_txn WHERE hash = NEW.hash) OR EXISTS (SELECT 1 FROM ledger_txn WHERE idempotency_key = NEW.idempotency_key);
END
