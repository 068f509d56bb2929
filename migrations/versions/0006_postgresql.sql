ALTER TABLE account DROP CONSTRAINT ck_account_kind

ALTER TABLE account ADD CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx', 'credits:unvalued'))

CREATE TABLE unvalued (
	id BIGINT NOT NULL CONSTRAINT ck_unvalued_id CHECK (id >= 1),
	output_id BIGINT NOT NULL,
	action TEXT COLLATE "C" NOT NULL CONSTRAINT ck_unvalued_action CHECK (action IN ('unvalued', 'restored')),
	reason TEXT COLLATE "C" NOT NULL CONSTRAINT ck_unvalued_reason CHECK (length(reason) >= 1),
	txn_id BIGINT NOT NULL,
	recorded_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_unvalued_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_unvalued PRIMARY KEY (id),
	CONSTRAINT uq_unvalued_txn_id UNIQUE (txn_id),
	CONSTRAINT fk_unvalued_output_id FOREIGN KEY(output_id) REFERENCES output (id),
	CONSTRAINT fk_unvalued_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE INDEX ix_unvalued_output_id ON unvalued (output_id)

CREATE FUNCTION unvalued_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of unvalued may be deleted';
END
$$

CREATE TRIGGER unvalued_delete BEFORE DELETE ON unvalued FOR EACH ROW EXECUTE FUNCTION unvalued_delete()

CREATE FUNCTION unvalued_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.action = coalesce((SELECT s.action FROM unvalued AS s WHERE s.output_id = NEW.output_id ORDER BY s.id DESC LIMIT 1), 'restored') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: taking an output out and restoring it take turns';
  END IF;
  IF NEW.action = 'unvalued' AND EXISTS (SELECT 1 FROM valuation AS v WHERE v.output_id = NEW.output_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a valued output cannot become unvalued';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER unvalued_insert BEFORE INSERT ON unvalued FOR EACH ROW EXECUTE FUNCTION unvalued_insert()

CREATE FUNCTION unvalued_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: unvalued is append-only: no row may be changed';
END
$$

CREATE TRIGGER unvalued_update BEFORE UPDATE ON unvalued FOR EACH ROW EXECUTE FUNCTION unvalued_update()

CREATE FUNCTION unvalued_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of unvalued may be deleted';
END
$$

CREATE TRIGGER unvalued_truncate BEFORE TRUNCATE ON unvalued FOR EACH STATEMENT EXECUTE FUNCTION unvalued_truncate()

CREATE FUNCTION valuation_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT s.action FROM unvalued AS s WHERE s.output_id = NEW.output_id ORDER BY s.id DESC LIMIT 1) = 'unvalued' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: an unvalued output cannot be valued: restore it first';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER valuation_insert BEFORE INSERT ON valuation FOR EACH ROW EXECUTE FUNCTION valuation_insert()
