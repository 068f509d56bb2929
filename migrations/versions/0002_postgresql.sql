ALTER TABLE account DROP CONSTRAINT ck_account_kind

ALTER TABLE account ADD CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow'))

CREATE TABLE contract_term_0001 AS SELECT * FROM contract_term

DROP TABLE contract_term

CREATE TABLE contract_term (
  id BIGINT NOT NULL CONSTRAINT ck_contract_term_id CHECK (id >= 1),
  provider_id BIGINT NOT NULL,
  currency TEXT COLLATE "C" NOT NULL CONSTRAINT ck_contract_term_currency CHECK (currency LIKE '___'),
  version BIGINT NOT NULL CONSTRAINT ck_contract_term_version CHECK (version >= 0),
  valid_from TEXT COLLATE "C" NOT NULL CONSTRAINT ck_contract_term_valid_from CHECK (valid_from LIKE '____-__-__'),
  valid_to TEXT COLLATE "C" CONSTRAINT ck_contract_term_valid_to CHECK (valid_to LIKE '____-__-__'),
  supersedes BIGINT NOT NULL CONSTRAINT ck_contract_term_supersedes CHECK (supersedes IN (0, 1)),
  rate_ppm BIGINT NOT NULL CONSTRAINT ck_contract_term_rate_ppm CHECK (rate_ppm BETWEEN 0 AND 1000000),
  minimum_payout_minor BIGINT NOT NULL CONSTRAINT ck_contract_term_minimum_payout_minor CHECK (minimum_payout_minor >= 0),
  reserve_ppm BIGINT NOT NULL CONSTRAINT ck_contract_term_reserve_ppm CHECK (reserve_ppm BETWEEN 0 AND 1000000),
  reserve_release_periods BIGINT NOT NULL CONSTRAINT ck_contract_term_reserve_release_periods CHECK (reserve_release_periods >= 0),
  recoupment_ppm BIGINT NOT NULL CONSTRAINT ck_contract_term_recoupment_ppm CHECK (recoupment_ppm BETWEEN 0 AND 1000000),
  withholding_ppm BIGINT NOT NULL CONSTRAINT ck_contract_term_withholding_ppm CHECK (withholding_ppm BETWEEN 0 AND 1000000),
  fee_minor BIGINT NOT NULL CONSTRAINT ck_contract_term_fee_minor CHECK (fee_minor >= 0),
  agreement_reference TEXT COLLATE "C" NOT NULL,
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_contract_term_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_contract_term PRIMARY KEY (id),
  CONSTRAINT ck_contract_term_valid CHECK (valid_to >= valid_from),
  CONSTRAINT ck_contract_term_reserve CHECK ((reserve_ppm = 0) = (reserve_release_periods = 0)),
  CONSTRAINT uq_contract_term_provider_id_currency_version UNIQUE (provider_id, currency, version),
  CONSTRAINT fk_contract_term_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)

INSERT INTO contract_term
SELECT id, provider_id, currency, row_number() OVER (PARTITION BY provider_id, currency ORDER BY valid_from), valid_from, NULL, 0, 1000000, minimum_payout_minor, 0, 0, 1000000, 0, 0, '', created_at
FROM contract_term_0001

DROP TABLE contract_term_0001

CREATE TABLE hold (
  id BIGINT NOT NULL CONSTRAINT ck_hold_id CHECK (id >= 1),
  provider_id BIGINT NOT NULL,
  currency TEXT COLLATE "C" CONSTRAINT ck_hold_currency CHECK (currency LIKE '___'),
  action TEXT COLLATE "C" NOT NULL CONSTRAINT ck_hold_action CHECK (action IN ('hold', 'release')),
  reason TEXT COLLATE "C" NOT NULL CONSTRAINT ck_hold_reason CHECK (length(reason) >= 1),
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_hold_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_hold PRIMARY KEY (id),
  CONSTRAINT fk_hold_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)

CREATE INDEX ix_hold_provider_id ON hold (provider_id)

CREATE TABLE reserve (
  id BIGINT NOT NULL CONSTRAINT ck_reserve_id CHECK (id >= 1),
  period_id TEXT COLLATE "C" NOT NULL,
  provider_id BIGINT NOT NULL,
  currency TEXT COLLATE "C" NOT NULL CONSTRAINT ck_reserve_currency CHECK (currency LIKE '___'),
  amount_minor BIGINT NOT NULL CONSTRAINT ck_reserve_amount_minor CHECK (amount_minor > 0),
  release_period TEXT COLLATE "C" NOT NULL CONSTRAINT ck_reserve_month CHECK (release_period LIKE '____-__'),
  txn_id BIGINT NOT NULL,
  CONSTRAINT pk_reserve PRIMARY KEY (id),
  CONSTRAINT ck_reserve_release_later CHECK (release_period > period_id),
  CONSTRAINT uq_reserve_period_id_provider_id_currency UNIQUE (period_id, provider_id, currency),
  CONSTRAINT fk_reserve_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_reserve_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_reserve_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE INDEX ix_reserve_release_period ON reserve (release_period)

CREATE TRIGGER contract_term_delete BEFORE DELETE ON contract_term FOR EACH ROW EXECUTE FUNCTION contract_term_delete()

CREATE FUNCTION contract_term_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.version <> (SELECT coalesce(max(t.version), 0) + 1 FROM contract_term AS t WHERE t.provider_id = NEW.provider_id AND t.currency = NEW.currency) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a version of terms follows the last one';
  END IF;
  IF EXISTS (SELECT 1 FROM period WHERE status = 'closed' AND id >= substr(NEW.valid_from, 1, 7)) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed: terms begin after the last one that was closed';
  END IF;
  IF NEW.supersedes = 0 AND EXISTS (SELECT 1 FROM contract_term AS t WHERE t.provider_id = NEW.provider_id AND t.currency = NEW.currency AND t.valid_from <= coalesce(NEW.valid_to, '9999-12-31') AND coalesce(t.valid_to, '9999-12-31') >= NEW.valid_from AND NOT (t.valid_to IS NULL AND t.valid_from < NEW.valid_from)) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: terms that overlap others must be said to supersede them';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER contract_term_insert BEFORE INSERT ON contract_term FOR EACH ROW EXECUTE FUNCTION contract_term_insert()

CREATE TRIGGER contract_term_update BEFORE UPDATE ON contract_term FOR EACH ROW EXECUTE FUNCTION contract_term_update()

CREATE FUNCTION hold_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of hold may be deleted';
END
$$

CREATE TRIGGER hold_delete BEFORE DELETE ON hold FOR EACH ROW EXECUTE FUNCTION hold_delete()

CREATE FUNCTION hold_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.action = coalesce((SELECT action FROM hold WHERE provider_id = NEW.provider_id AND coalesce(currency, '') = coalesce(NEW.currency, '') ORDER BY id DESC LIMIT 1), 'release') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a hold and its release take turns';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER hold_insert BEFORE INSERT ON hold FOR EACH ROW EXECUTE FUNCTION hold_insert()

CREATE FUNCTION hold_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: hold is append-only: no row may be changed';
END
$$

CREATE TRIGGER hold_update BEFORE UPDATE ON hold FOR EACH ROW EXECUTE FUNCTION hold_update()

CREATE OR REPLACE FUNCTION period_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status <> 'open' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a period starts open';
  END IF;
  IF EXISTS (SELECT 1 FROM period WHERE id > NEW.id AND status = 'closed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed: a later one has been closed';
  END IF;
  RETURN NEW;
END
$$

CREATE OR REPLACE FUNCTION period_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status = 'closed' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed: it stays closed, as it was closed';
  END IF;
  IF NEW.status <> 'closed' OR NEW.id <> OLD.id OR NEW.opened_at <> OLD.opened_at THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the only change to a period is to close it';
  END IF;
  IF EXISTS (SELECT 1 FROM period WHERE id < NEW.id AND status = 'open') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: periods close in their order: an earlier one is open';
  END IF;
  RETURN NEW;
END
$$

CREATE FUNCTION reserve_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of reserve may be deleted';
END
$$

CREATE TRIGGER reserve_delete BEFORE DELETE ON reserve FOR EACH ROW EXECUTE FUNCTION reserve_delete()

CREATE FUNCTION reserve_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM period WHERE id = NEW.period_id FOR SHARE;
  IF EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER reserve_insert BEFORE INSERT ON reserve FOR EACH ROW EXECUTE FUNCTION reserve_insert()

CREATE FUNCTION reserve_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: reserve is append-only: no row may be changed';
END
$$

CREATE TRIGGER reserve_update BEFORE UPDATE ON reserve FOR EACH ROW EXECUTE FUNCTION reserve_update()

CREATE TRIGGER contract_term_truncate BEFORE TRUNCATE ON contract_term FOR EACH STATEMENT EXECUTE FUNCTION contract_term_truncate()

CREATE FUNCTION hold_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of hold may be deleted';
END
$$

CREATE TRIGGER hold_truncate BEFORE TRUNCATE ON hold FOR EACH STATEMENT EXECUTE FUNCTION hold_truncate()

CREATE FUNCTION reserve_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of reserve may be deleted';
END
$$

CREATE TRIGGER reserve_truncate BEFORE TRUNCATE ON reserve FOR EACH STATEMENT EXECUTE FUNCTION reserve_truncate()
