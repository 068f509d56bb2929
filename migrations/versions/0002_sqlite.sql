CREATE TABLE account_0001 AS SELECT * FROM account

PRAGMA defer_foreign_keys = ON

DROP TABLE account

CREATE TABLE account (
  id INTEGER NOT NULL CONSTRAINT ck_account_id CHECK (id >= 1),
  "key" TEXT NOT NULL CONSTRAINT ck_account_key CHECK (length(key) >= 1),
  kind TEXT NOT NULL CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow')),
  provider_id INTEGER,
  collection TEXT,
  CONSTRAINT pk_account PRIMARY KEY (id),
  CONSTRAINT uq_account_key UNIQUE ("key"),
  CONSTRAINT fk_account_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

INSERT INTO account SELECT id, key, kind, provider_id, collection FROM account_0001

DROP TABLE account_0001

CREATE INDEX ix_account_provider_id ON account (provider_id)

CREATE TABLE contract_term_0001 AS SELECT * FROM contract_term

DROP TABLE contract_term

CREATE TABLE contract_term (
  id INTEGER NOT NULL CONSTRAINT ck_contract_term_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  currency TEXT NOT NULL CONSTRAINT ck_contract_term_currency CHECK (currency LIKE '___'),
  version INTEGER NOT NULL CONSTRAINT ck_contract_term_version CHECK (version >= 0),
  valid_from TEXT NOT NULL CONSTRAINT ck_contract_term_valid_from CHECK (valid_from LIKE '____-__-__'),
  valid_to TEXT CONSTRAINT ck_contract_term_valid_to CHECK (valid_to LIKE '____-__-__'),
  supersedes INTEGER NOT NULL CONSTRAINT ck_contract_term_supersedes CHECK (supersedes IN (0, 1)),
  rate_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_rate_ppm CHECK (rate_ppm BETWEEN 0 AND 1000000),
  minimum_payout_minor INTEGER NOT NULL CONSTRAINT ck_contract_term_minimum_payout_minor CHECK (minimum_payout_minor >= 0),
  reserve_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_reserve_ppm CHECK (reserve_ppm BETWEEN 0 AND 1000000),
  reserve_release_periods INTEGER NOT NULL CONSTRAINT ck_contract_term_reserve_release_periods CHECK (reserve_release_periods >= 0),
  recoupment_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_recoupment_ppm CHECK (recoupment_ppm BETWEEN 0 AND 1000000),
  withholding_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_withholding_ppm CHECK (withholding_ppm BETWEEN 0 AND 1000000),
  fee_minor INTEGER NOT NULL CONSTRAINT ck_contract_term_fee_minor CHECK (fee_minor >= 0),
  agreement_reference TEXT NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_contract_term_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_contract_term PRIMARY KEY (id),
  CONSTRAINT ck_contract_term_valid CHECK (valid_to >= valid_from),
  CONSTRAINT ck_contract_term_reserve CHECK ((reserve_ppm = 0) = (reserve_release_periods = 0)),
  CONSTRAINT uq_contract_term_provider_id_currency_version UNIQUE (provider_id, currency, version),
  CONSTRAINT fk_contract_term_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

INSERT INTO contract_term
SELECT id, provider_id, currency, row_number() OVER (PARTITION BY provider_id, currency ORDER BY valid_from), valid_from, NULL, 0, 1000000, minimum_payout_minor, 0, 0, 1000000, 0, 0, '', created_at
FROM contract_term_0001

DROP TABLE contract_term_0001

CREATE TABLE hold (
  id INTEGER NOT NULL CONSTRAINT ck_hold_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  currency TEXT CONSTRAINT ck_hold_currency CHECK (currency LIKE '___'),
  action TEXT NOT NULL CONSTRAINT ck_hold_action CHECK (action IN ('hold', 'release')),
  reason TEXT NOT NULL CONSTRAINT ck_hold_reason CHECK (length(reason) >= 1),
  created_at TEXT NOT NULL CONSTRAINT ck_hold_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_hold PRIMARY KEY (id),
  CONSTRAINT fk_hold_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

CREATE INDEX ix_hold_provider_id ON hold (provider_id)

CREATE TABLE reserve (
  id INTEGER NOT NULL CONSTRAINT ck_reserve_id CHECK (id >= 1),
  period_id TEXT NOT NULL,
  provider_id INTEGER NOT NULL,
  currency TEXT NOT NULL CONSTRAINT ck_reserve_currency CHECK (currency LIKE '___'),
  amount_minor INTEGER NOT NULL CONSTRAINT ck_reserve_amount_minor CHECK (amount_minor > 0),
  release_period TEXT NOT NULL CONSTRAINT ck_reserve_month CHECK (release_period LIKE '____-__'),
  txn_id INTEGER NOT NULL,
  CONSTRAINT pk_reserve PRIMARY KEY (id),
  CONSTRAINT ck_reserve_release_later CHECK (release_period > period_id),
  CONSTRAINT uq_reserve_period_id_provider_id_currency UNIQUE (period_id, provider_id, currency),
  CONSTRAINT fk_reserve_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_reserve_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_reserve_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE INDEX ix_reserve_release_period ON reserve (release_period)

DROP TRIGGER period_insert

DROP TRIGGER period_update

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

CREATE TRIGGER contract_term_delete BEFORE DELETE ON contract_term
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of contract_term may be deleted');
END

CREATE TRIGGER contract_term_insert BEFORE INSERT ON contract_term
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a version of terms follows the last one')
    WHERE NEW.version <> (SELECT coalesce(max(t.version), 0) + 1 FROM contract_term AS t WHERE t.provider_id = NEW.provider_id AND t.currency = NEW.currency);
  SELECT RAISE(ABORT, 'credit refuses: the period is closed: terms begin after the last one that was closed')
    WHERE EXISTS (SELECT 1 FROM period WHERE status = 'closed' AND id >= substr(NEW.valid_from, 1, 7));
  SELECT RAISE(ABORT, 'credit refuses: terms that overlap others must be said to supersede them')
    WHERE NEW.supersedes = 0 AND EXISTS (SELECT 1 FROM contract_term AS t WHERE t.provider_id = NEW.provider_id AND t.currency = NEW.currency AND t.valid_from <= coalesce(NEW.valid_to, '9999-12-31') AND coalesce(t.valid_to, '9999-12-31') >= NEW.valid_from AND NOT (t.valid_to IS NULL AND t.valid_from < NEW.valid_from));
  SELECT RAISE(ABORT, 'credit refuses: this row of contract_term exists already')
    WHERE EXISTS (SELECT 1 FROM contract_term WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM contract_term WHERE provider_id = NEW.provider_id AND currency = NEW.currency AND version = NEW.version);
END

CREATE TRIGGER contract_term_update BEFORE UPDATE ON contract_term
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: contract_term is append-only: no row may be changed');
END

CREATE TRIGGER hold_delete BEFORE DELETE ON hold
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of hold may be deleted');
END

CREATE TRIGGER hold_insert BEFORE INSERT ON hold
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a hold and its release take turns')
    WHERE NEW.action = coalesce((SELECT action FROM hold WHERE provider_id = NEW.provider_id AND coalesce(currency, '') = coalesce(NEW.currency, '') ORDER BY id DESC LIMIT 1), 'release');
  SELECT RAISE(ABORT, 'credit refuses: this row of hold exists already')
    WHERE EXISTS (SELECT 1 FROM hold WHERE id = NEW.id);
END

CREATE TRIGGER hold_update BEFORE UPDATE ON hold
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: hold is append-only: no row may be changed');
END

CREATE TRIGGER period_insert BEFORE INSERT ON period
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a period starts open')
    WHERE NEW.status <> 'open';
  SELECT RAISE(ABORT, 'credit refuses: the period is closed: a later one has been closed')
    WHERE EXISTS (SELECT 1 FROM period WHERE id > NEW.id AND status = 'closed');
  SELECT RAISE(ABORT, 'credit refuses: this row of period exists already')
    WHERE EXISTS (SELECT 1 FROM period WHERE id = NEW.id);
END

CREATE TRIGGER period_update BEFORE UPDATE ON period
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: the period is closed: it stays closed, as it was closed')
    WHERE OLD.status = 'closed';
  SELECT RAISE(ABORT, 'credit refuses: the only change to a period is to close it')
    WHERE NEW.status <> 'closed' OR NEW.id <> OLD.id OR NEW.opened_at <> OLD.opened_at;
  SELECT RAISE(ABORT, 'credit refuses: periods close in their order: an earlier one is open')
    WHERE EXISTS (SELECT 1 FROM period WHERE id < NEW.id AND status = 'open');
END

CREATE TRIGGER reserve_delete BEFORE DELETE ON reserve
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of reserve may be deleted');
END

CREATE TRIGGER reserve_insert BEFORE INSERT ON reserve
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: the period is closed')
    WHERE EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed');
  SELECT RAISE(ABORT, 'credit refuses: this row of reserve exists already')
    WHERE EXISTS (SELECT 1 FROM reserve WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM reserve WHERE period_id = NEW.period_id AND provider_id = NEW.provider_id AND currency = NEW.currency);
END

CREATE TRIGGER reserve_update BEFORE UPDATE ON reserve
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: reserve is append-only: no row may be changed');
END
