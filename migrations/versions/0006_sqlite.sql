CREATE TABLE account_0005 AS SELECT * FROM account

PRAGMA defer_foreign_keys = ON

DROP TABLE account

CREATE TABLE account (
	id INTEGER NOT NULL CONSTRAINT ck_account_id CHECK (id >= 1),
	"key" TEXT NOT NULL CONSTRAINT ck_account_key CHECK (length(key) >= 1),
	kind TEXT NOT NULL CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx', 'credits:unvalued')),
	provider_id INTEGER,
	collection TEXT,
	CONSTRAINT pk_account PRIMARY KEY (id),
	CONSTRAINT uq_account_key UNIQUE ("key"),
	CONSTRAINT fk_account_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

INSERT INTO account SELECT id, key, kind, provider_id, collection FROM account_0005

DROP TABLE account_0005

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

CREATE TABLE unvalued (
	id INTEGER NOT NULL CONSTRAINT ck_unvalued_id CHECK (id >= 1),
	output_id INTEGER NOT NULL,
	action TEXT NOT NULL CONSTRAINT ck_unvalued_action CHECK (action IN ('unvalued', 'restored')),
	reason TEXT NOT NULL CONSTRAINT ck_unvalued_reason CHECK (length(reason) >= 1),
	txn_id INTEGER NOT NULL,
	recorded_at TEXT NOT NULL CONSTRAINT ck_unvalued_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_unvalued PRIMARY KEY (id),
	CONSTRAINT uq_unvalued_txn_id UNIQUE (txn_id),
	CONSTRAINT fk_unvalued_output_id FOREIGN KEY(output_id) REFERENCES output (id),
	CONSTRAINT fk_unvalued_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE INDEX ix_unvalued_output_id ON unvalued (output_id)

CREATE TRIGGER unvalued_delete BEFORE DELETE ON unvalued
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of unvalued may be deleted');
END

CREATE TRIGGER unvalued_insert BEFORE INSERT ON unvalued
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: taking an output out and restoring it take turns')
    WHERE NEW.action = coalesce((SELECT s.action FROM unvalued AS s WHERE s.output_id = NEW.output_id ORDER BY s.id DESC LIMIT 1), 'restored');
  SELECT RAISE(ABORT, 'credit refuses: a valued output cannot become unvalued')
    WHERE NEW.action = 'unvalued' AND EXISTS (SELECT 1 FROM valuation AS v WHERE v.output_id = NEW.output_id);
  SELECT RAISE(ABORT, 'credit refuses: this row of unvalued exists already')
    WHERE EXISTS (SELECT 1 FROM unvalued WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM unvalued WHERE txn_id = NEW.txn_id);
END

CREATE TRIGGER unvalued_update BEFORE UPDATE ON unvalued
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: unvalued is append-only: no row may be changed');
END

DROP TRIGGER valuation_insert

CREATE TRIGGER valuation_insert BEFORE INSERT ON valuation
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: an unvalued output cannot be valued: restore it first')
    WHERE (SELECT s.action FROM unvalued AS s WHERE s.output_id = NEW.output_id ORDER BY s.id DESC LIMIT 1) = 'unvalued';
  SELECT RAISE(ABORT, 'credit refuses: this row of valuation exists already')
    WHERE EXISTS (SELECT 1 FROM valuation WHERE output_id = NEW.output_id AND index_id = NEW.index_id);
END
