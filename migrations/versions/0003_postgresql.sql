CREATE TABLE personal_event (
	id BIGINT NOT NULL CONSTRAINT ck_personal_event_id CHECK (id >= 1),
	provider_id BIGINT NOT NULL,
	action TEXT COLLATE "C" NOT NULL CONSTRAINT ck_personal_event_action CHECK (action IN ('set', 'erased')),
	reason TEXT COLLATE "C" NOT NULL,
	recorded_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_personal_event_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_personal_event PRIMARY KEY (id),
	CONSTRAINT ck_personal_event_reason CHECK (action = 'set' OR length(reason) >= 1),
	CONSTRAINT fk_personal_event_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)

CREATE INDEX ix_personal_event_provider_id ON personal_event (provider_id)

CREATE TABLE provider_pii (
	id BIGINT NOT NULL,
	provider_id BIGINT NOT NULL,
	legal_name TEXT COLLATE "C" NOT NULL,
	account_holder TEXT COLLATE "C" NOT NULL,
	receiver TEXT COLLATE "C" NOT NULL CONSTRAINT ck_provider_pii_receiver CHECK (receiver IN ('', 'person', 'institution')),
	email TEXT COLLATE "C" NOT NULL,
	street TEXT COLLATE "C" NOT NULL,
	building TEXT COLLATE "C" NOT NULL,
	postcode TEXT COLLATE "C" NOT NULL,
	town TEXT COLLATE "C" NOT NULL,
	country TEXT COLLATE "C" NOT NULL,
	iban TEXT COLLATE "C" NOT NULL,
	bic TEXT COLLATE "C" NOT NULL,
	paypal TEXT COLLATE "C" NOT NULL,
	tax_id TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_provider_pii PRIMARY KEY (id),
	CONSTRAINT fk_provider_pii_id FOREIGN KEY(id) REFERENCES personal_event (id),
	CONSTRAINT fk_provider_pii_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)

CREATE INDEX ix_provider_pii_provider_id ON provider_pii (provider_id)

CREATE TABLE payout_batch (
	id BIGINT NOT NULL CONSTRAINT ck_payout_batch_id CHECK (id >= 1),
	period_id TEXT COLLATE "C" NOT NULL,
	currency TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_batch_currency CHECK (currency LIKE '___'),
	format TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_batch_format CHECK (format IN ('csv', 'pain001', 'paypal', 'wise')),
	reference TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_batch_reference CHECK (length(reference) >= 1),
	payer_json TEXT COLLATE "C" NOT NULL,
	payout_count BIGINT NOT NULL CONSTRAINT ck_payout_batch_payout_count CHECK (payout_count >= 1),
	amount_minor BIGINT NOT NULL CONSTRAINT ck_payout_batch_amount_minor CHECK (amount_minor >= 1),
	file_sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_batch_file_sha256 CHECK (length(file_sha256) = 64),
	txn_id BIGINT NOT NULL,
	created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_batch_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_payout_batch PRIMARY KEY (id),
	CONSTRAINT uq_payout_batch_reference UNIQUE (reference),
	CONSTRAINT fk_payout_batch_period_id FOREIGN KEY(period_id) REFERENCES period (id),
	CONSTRAINT fk_payout_batch_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE INDEX ix_payout_batch_period_id ON payout_batch (period_id)

CREATE TABLE payout_event (
	id BIGINT NOT NULL CONSTRAINT ck_payout_event_id CHECK (id >= 1),
	payout_id BIGINT NOT NULL,
	batch_id BIGINT NOT NULL,
	status TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_event_status CHECK (status IN ('exported', 'paid', 'failed')),
	details_id BIGINT,
	reference TEXT COLLATE "C" NOT NULL,
	reason TEXT COLLATE "C" NOT NULL,
	txn_id BIGINT NOT NULL,
	recorded_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_event_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_payout_event PRIMARY KEY (id),
	CONSTRAINT ck_payout_event_details CHECK ((status = 'exported') = (details_id IS NOT NULL)),
	CONSTRAINT uq_payout_event_payout_id_batch_id_status UNIQUE (payout_id, batch_id, status),
	CONSTRAINT fk_payout_event_payout_id FOREIGN KEY(payout_id) REFERENCES payout (id),
	CONSTRAINT fk_payout_event_batch_id FOREIGN KEY(batch_id) REFERENCES payout_batch (id),
	CONSTRAINT fk_payout_event_details_id FOREIGN KEY(details_id) REFERENCES personal_event (id),
	CONSTRAINT fk_payout_event_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE INDEX ix_payout_event_batch_id ON payout_event (batch_id)

DROP TRIGGER payout_update ON payout

DROP FUNCTION payout_update()

CREATE FUNCTION payout_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status <> 'pending' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a payout starts pending';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER payout_insert BEFORE INSERT ON payout FOR EACH ROW EXECUTE FUNCTION payout_insert()

CREATE FUNCTION payout_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> OLD.id OR NEW.period_id <> OLD.period_id OR NEW.provider_id <> OLD.provider_id OR NEW.currency <> OLD.currency OR NEW.amount_minor <> OLD.amount_minor OR NEW.txn_id <> OLD.txn_id THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: only the status of a payout may change';
  END IF;
  IF NEW.status <> coalesce((SELECT e.status FROM payout_event AS e WHERE e.payout_id = NEW.id ORDER BY e.id DESC LIMIT 1), 'pending') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the status of a payout is that of its last event';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER payout_update BEFORE UPDATE ON payout FOR EACH ROW EXECUTE FUNCTION payout_update()

CREATE FUNCTION payout_batch_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of payout_batch may be deleted';
END
$$

CREATE TRIGGER payout_batch_delete BEFORE DELETE ON payout_batch FOR EACH ROW EXECUTE FUNCTION payout_batch_delete()

CREATE FUNCTION payout_batch_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: payout_batch is append-only: no row may be changed';
END
$$

CREATE TRIGGER payout_batch_update BEFORE UPDATE ON payout_batch FOR EACH ROW EXECUTE FUNCTION payout_batch_update()

CREATE FUNCTION payout_event_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of payout_event may be deleted';
END
$$

CREATE TRIGGER payout_event_delete BEFORE DELETE ON payout_event FOR EACH ROW EXECUTE FUNCTION payout_event_delete()

CREATE FUNCTION payout_event_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status = 'exported' AND (SELECT status FROM payout WHERE id = NEW.payout_id) NOT IN ('pending', 'failed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: only a payout that is pending or failed can be exported';
  END IF;
  IF NEW.status <> 'exported' AND ((SELECT status FROM payout WHERE id = NEW.payout_id) <> 'exported' OR NEW.batch_id <> (SELECT e.batch_id FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1)) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: only a payout that is exported, and in its last batch, can be paid or fail';
  END IF;
  IF coalesce((SELECT e.status FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1), 'pending') <> (SELECT status FROM payout WHERE id = NEW.payout_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the last event of the payout has not reached its status';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER payout_event_insert BEFORE INSERT ON payout_event FOR EACH ROW EXECUTE FUNCTION payout_event_insert()

CREATE FUNCTION payout_event_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: payout_event is append-only: no row may be changed';
END
$$

CREATE TRIGGER payout_event_update BEFORE UPDATE ON payout_event FOR EACH ROW EXECUTE FUNCTION payout_event_update()

CREATE FUNCTION personal_event_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of personal_event may be deleted';
END
$$

CREATE TRIGGER personal_event_delete BEFORE DELETE ON personal_event FOR EACH ROW EXECUTE FUNCTION personal_event_delete()

CREATE FUNCTION personal_event_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: personal_event is append-only: no row may be changed';
END
$$

CREATE TRIGGER personal_event_update BEFORE UPDATE ON personal_event FOR EACH ROW EXECUTE FUNCTION personal_event_update()

CREATE FUNCTION provider_pii_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF coalesce((SELECT action FROM personal_event AS e WHERE e.provider_id = OLD.provider_id ORDER BY e.id DESC LIMIT 1), '') <> 'erased' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: personal details go only by an erasure on record';
  END IF;
  RETURN OLD;
END
$$

CREATE TRIGGER provider_pii_delete BEFORE DELETE ON provider_pii FOR EACH ROW EXECUTE FUNCTION provider_pii_delete()

CREATE FUNCTION provider_pii_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM personal_event AS e WHERE e.id = NEW.id AND e.provider_id = NEW.provider_id AND e.action = 'set') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: personal details belong to an event of their provider that set them';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER provider_pii_insert BEFORE INSERT ON provider_pii FOR EACH ROW EXECUTE FUNCTION provider_pii_insert()

CREATE FUNCTION provider_pii_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: personal details are not changed: new ones are set, or all are erased';
END
$$

CREATE TRIGGER provider_pii_update BEFORE UPDATE ON provider_pii FOR EACH ROW EXECUTE FUNCTION provider_pii_update()

CREATE FUNCTION personal_event_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of personal_event may be deleted';
END
$$

CREATE TRIGGER personal_event_truncate BEFORE TRUNCATE ON personal_event FOR EACH STATEMENT EXECUTE FUNCTION personal_event_truncate()

CREATE FUNCTION payout_batch_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of payout_batch may be deleted';
END
$$

CREATE TRIGGER payout_batch_truncate BEFORE TRUNCATE ON payout_batch FOR EACH STATEMENT EXECUTE FUNCTION payout_batch_truncate()

CREATE FUNCTION payout_event_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of payout_event may be deleted';
END
$$

CREATE TRIGGER payout_event_truncate BEFORE TRUNCATE ON payout_event FOR EACH STATEMENT EXECUTE FUNCTION payout_event_truncate()

CREATE FUNCTION provider_pii_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of provider_pii may be deleted';
END
$$

CREATE TRIGGER provider_pii_truncate BEFORE TRUNCATE ON provider_pii FOR EACH STATEMENT EXECUTE FUNCTION provider_pii_truncate()
