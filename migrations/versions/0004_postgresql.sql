ALTER TABLE account DROP CONSTRAINT ck_account_kind

ALTER TABLE account ADD CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx'))

ALTER TABLE contract_term ADD COLUMN pay_in TEXT COLLATE "C" DEFAULT '' NOT NULL CONSTRAINT ck_contract_term_pay_in CHECK (pay_in = '' OR (pay_in LIKE '___' AND pay_in <> currency))

CREATE TABLE fx_rate (
	id BIGINT NOT NULL CONSTRAINT ck_fx_rate_id CHECK (id >= 1),
	on_day TEXT COLLATE "C" NOT NULL CONSTRAINT ck_fx_rate_on_day CHECK (on_day LIKE '____-__-__'),
	base TEXT COLLATE "C" NOT NULL CONSTRAINT ck_fx_rate_base CHECK (base LIKE '___'),
	quote TEXT COLLATE "C" NOT NULL CONSTRAINT ck_fx_rate_quote CHECK (quote LIKE '___' AND quote <> base),
	version BIGINT NOT NULL CONSTRAINT ck_fx_rate_version CHECK (version >= 1),
	coefficient BIGINT NOT NULL CONSTRAINT ck_fx_rate_coefficient CHECK (coefficient >= 1),
	digits BIGINT NOT NULL CONSTRAINT ck_fx_rate_digits CHECK (digits BETWEEN 0 AND 12),
	source TEXT COLLATE "C" NOT NULL CONSTRAINT ck_fx_rate_source CHECK (length(source) >= 1),
	created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_fx_rate_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_fx_rate PRIMARY KEY (id),
	CONSTRAINT uq_fx_rate_on_day_base_quote_version UNIQUE (on_day, base, quote, version)
)

CREATE FUNCTION fx_rate_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of fx_rate may be deleted';
END
$$

CREATE TRIGGER fx_rate_delete BEFORE DELETE ON fx_rate FOR EACH ROW EXECUTE FUNCTION fx_rate_delete()

CREATE FUNCTION fx_rate_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.version <> (SELECT coalesce(max(r.version), 0) + 1 FROM fx_rate AS r WHERE r.on_day = NEW.on_day AND r.base = NEW.base AND r.quote = NEW.quote) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a version of a rate follows the last one';
  END IF;
  IF EXISTS (SELECT 1 FROM period WHERE status = 'closed' AND id >= substr(NEW.on_day, 1, 7)) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed: its rates stay as they were';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER fx_rate_insert BEFORE INSERT ON fx_rate FOR EACH ROW EXECUTE FUNCTION fx_rate_insert()

CREATE FUNCTION fx_rate_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: fx_rate is append-only: no row may be changed';
END
$$

CREATE TRIGGER fx_rate_update BEFORE UPDATE ON fx_rate FOR EACH ROW EXECUTE FUNCTION fx_rate_update()

CREATE FUNCTION fx_rate_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of fx_rate may be deleted';
END
$$

CREATE TRIGGER fx_rate_truncate BEFORE TRUNCATE ON fx_rate FOR EACH STATEMENT EXECUTE FUNCTION fx_rate_truncate()
