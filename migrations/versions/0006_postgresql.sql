ALTER TABLE account DROP CONSTRAINT ck_account_kind

ALTER TABLE account ADD CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx', 'credits:set-aside'))

CREATE TABLE set_aside (
	id BIGINT NOT NULL CONSTRAINT ck_set_aside_id CHECK (id >= 1),
	output_id BIGINT NOT NULL,
	action TEXT COLLATE "C" NOT NULL CONSTRAINT ck_set_aside_action CHECK (action IN ('set-aside', 'restored')),
	reason TEXT COLLATE "C" NOT NULL CONSTRAINT ck_set_aside_reason CHECK (length(reason) >= 1),
	txn_id BIGINT NOT NULL,
	recorded_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_set_aside_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_set_aside PRIMARY KEY (id),
	CONSTRAINT uq_set_aside_txn_id UNIQUE (txn_id),
	CONSTRAINT fk_set_aside_output_id FOREIGN KEY(output_id) REFERENCES output (id),
	CONSTRAINT fk_set_aside_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE INDEX ix_set_aside_output_id ON set_aside (output_id)

CREATE FUNCTION set_aside_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of set_aside may be deleted';
END
$$

CREATE TRIGGER set_aside_delete BEFORE DELETE ON set_aside FOR EACH ROW EXECUTE FUNCTION set_aside_delete()

CREATE FUNCTION set_aside_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.action = coalesce((SELECT s.action FROM set_aside AS s WHERE s.output_id = NEW.output_id ORDER BY s.id DESC LIMIT 1), 'restored') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: setting aside and taking back take turns';
  END IF;
  IF NEW.action = 'set-aside' AND EXISTS (SELECT 1 FROM valuation AS v WHERE v.output_id = NEW.output_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: an output that is valued is not set aside';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER set_aside_insert BEFORE INSERT ON set_aside FOR EACH ROW EXECUTE FUNCTION set_aside_insert()

CREATE FUNCTION set_aside_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: set_aside is append-only: no row may be changed';
END
$$

CREATE TRIGGER set_aside_update BEFORE UPDATE ON set_aside FOR EACH ROW EXECUTE FUNCTION set_aside_update()

CREATE FUNCTION set_aside_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of set_aside may be deleted';
END
$$

CREATE TRIGGER set_aside_truncate BEFORE TRUNCATE ON set_aside FOR EACH STATEMENT EXECUTE FUNCTION set_aside_truncate()

CREATE FUNCTION valuation_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT s.action FROM set_aside AS s WHERE s.output_id = NEW.output_id ORDER BY s.id DESC LIMIT 1) = 'set-aside' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: an output that is set aside is not valued';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER valuation_insert BEFORE INSERT ON valuation FOR EACH ROW EXECUTE FUNCTION valuation_insert()
