CREATE TABLE account_0003 AS SELECT * FROM account

PRAGMA defer_foreign_keys = ON

DROP TABLE account

CREATE TABLE account (
	id INTEGER NOT NULL CONSTRAINT ck_account_id CHECK (id >= 1),
	"key" TEXT NOT NULL CONSTRAINT ck_account_key CHECK (length(key) >= 1),
	kind TEXT NOT NULL CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx')),
	provider_id INTEGER,
	collection TEXT,
	CONSTRAINT pk_account PRIMARY KEY (id),
	CONSTRAINT uq_account_key UNIQUE ("key"),
	CONSTRAINT fk_account_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

INSERT INTO account SELECT id, key, kind, provider_id, collection FROM account_0003

DROP TABLE account_0003

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

ALTER TABLE contract_term ADD COLUMN pay_in TEXT DEFAULT '' NOT NULL CONSTRAINT ck_contract_term_pay_in CHECK (pay_in = '' OR (pay_in LIKE '___' AND pay_in <> currency))

CREATE TABLE fx_rate (
	id INTEGER NOT NULL CONSTRAINT ck_fx_rate_id CHECK (id >= 1),
	on_day TEXT NOT NULL CONSTRAINT ck_fx_rate_on_day CHECK (on_day LIKE '____-__-__'),
	base TEXT NOT NULL CONSTRAINT ck_fx_rate_base CHECK (base LIKE '___'),
	quote TEXT NOT NULL CONSTRAINT ck_fx_rate_quote CHECK (quote LIKE '___' AND quote <> base),
	version INTEGER NOT NULL CONSTRAINT ck_fx_rate_version CHECK (version >= 1),
	coefficient INTEGER NOT NULL CONSTRAINT ck_fx_rate_coefficient CHECK (coefficient >= 1),
	digits INTEGER NOT NULL CONSTRAINT ck_fx_rate_digits CHECK (digits BETWEEN 0 AND 12),
	source TEXT NOT NULL CONSTRAINT ck_fx_rate_source CHECK (length(source) >= 1),
	created_at TEXT NOT NULL CONSTRAINT ck_fx_rate_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_fx_rate PRIMARY KEY (id),
	CONSTRAINT uq_fx_rate_on_day_base_quote_version UNIQUE (on_day, base, quote, version)
)
 STRICT

CREATE TRIGGER fx_rate_delete BEFORE DELETE ON fx_rate
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of fx_rate may be deleted');
END

CREATE TRIGGER fx_rate_insert BEFORE INSERT ON fx_rate
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a version of a rate follows the last one')
    WHERE NEW.version <> (SELECT coalesce(max(r.version), 0) + 1 FROM fx_rate AS r WHERE r.on_day = NEW.on_day AND r.base = NEW.base AND r.quote = NEW.quote);
  SELECT RAISE(ABORT, 'credit refuses: the period is closed: its rates stay as they were')
    WHERE EXISTS (SELECT 1 FROM period WHERE status = 'closed' AND id >= substr(NEW.on_day, 1, 7));
  SELECT RAISE(ABORT, 'credit refuses: this row of fx_rate exists already')
    WHERE EXISTS (SELECT 1 FROM fx_rate WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM fx_rate WHERE on_day = NEW.on_day AND base = NEW.base AND quote = NEW.quote AND version = NEW.version);
END

CREATE TRIGGER fx_rate_update BEFORE UPDATE ON fx_rate
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: fx_rate is append-only: no row may be changed');
END
