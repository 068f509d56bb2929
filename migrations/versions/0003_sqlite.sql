CREATE TABLE personal_event (
	id INTEGER NOT NULL CONSTRAINT ck_personal_event_id CHECK (id >= 1),
	provider_id INTEGER NOT NULL,
	action TEXT NOT NULL CONSTRAINT ck_personal_event_action CHECK (action IN ('set', 'erased')),
	reason TEXT NOT NULL,
	recorded_at TEXT NOT NULL CONSTRAINT ck_personal_event_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_personal_event PRIMARY KEY (id),
	CONSTRAINT ck_personal_event_reason CHECK (action = 'set' OR length(reason) >= 1),
	CONSTRAINT fk_personal_event_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

CREATE INDEX ix_personal_event_provider_id ON personal_event (provider_id)

CREATE TABLE provider_pii (
	id INTEGER NOT NULL,
	provider_id INTEGER NOT NULL,
	legal_name TEXT NOT NULL,
	account_holder TEXT NOT NULL,
	receiver TEXT NOT NULL CONSTRAINT ck_provider_pii_receiver CHECK (receiver IN ('', 'person', 'institution')),
	email TEXT NOT NULL,
	street TEXT NOT NULL,
	building TEXT NOT NULL,
	postcode TEXT NOT NULL,
	town TEXT NOT NULL,
	country TEXT NOT NULL,
	iban TEXT NOT NULL,
	bic TEXT NOT NULL,
	paypal TEXT NOT NULL,
	tax_id TEXT NOT NULL,
	CONSTRAINT pk_provider_pii PRIMARY KEY (id),
	CONSTRAINT fk_provider_pii_id FOREIGN KEY(id) REFERENCES personal_event (id),
	CONSTRAINT fk_provider_pii_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

CREATE INDEX ix_provider_pii_provider_id ON provider_pii (provider_id)

CREATE TABLE payout_batch (
	id INTEGER NOT NULL CONSTRAINT ck_payout_batch_id CHECK (id >= 1),
	period_id TEXT NOT NULL,
	currency TEXT NOT NULL CONSTRAINT ck_payout_batch_currency CHECK (currency LIKE '___'),
	format TEXT NOT NULL CONSTRAINT ck_payout_batch_format CHECK (format IN ('csv', 'pain001', 'paypal', 'wise')),
	reference TEXT NOT NULL CONSTRAINT ck_payout_batch_reference CHECK (length(reference) >= 1),
	payer_json TEXT NOT NULL,
	payout_count INTEGER NOT NULL CONSTRAINT ck_payout_batch_payout_count CHECK (payout_count >= 1),
	amount_minor INTEGER NOT NULL CONSTRAINT ck_payout_batch_amount_minor CHECK (amount_minor >= 1),
	file_sha256 TEXT NOT NULL CONSTRAINT ck_payout_batch_file_sha256 CHECK (length(file_sha256) = 64),
	txn_id INTEGER NOT NULL,
	created_at TEXT NOT NULL CONSTRAINT ck_payout_batch_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_payout_batch PRIMARY KEY (id),
	CONSTRAINT uq_payout_batch_reference UNIQUE (reference),
	CONSTRAINT fk_payout_batch_period_id FOREIGN KEY(period_id) REFERENCES period (id),
	CONSTRAINT fk_payout_batch_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE INDEX ix_payout_batch_period_id ON payout_batch (period_id)

CREATE TABLE payout_event (
	id INTEGER NOT NULL CONSTRAINT ck_payout_event_id CHECK (id >= 1),
	payout_id INTEGER NOT NULL,
	batch_id INTEGER NOT NULL,
	status TEXT NOT NULL CONSTRAINT ck_payout_event_status CHECK (status IN ('exported', 'paid', 'failed')),
	details_id INTEGER,
	reference TEXT NOT NULL,
	reason TEXT NOT NULL,
	txn_id INTEGER NOT NULL,
	recorded_at TEXT NOT NULL CONSTRAINT ck_payout_event_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_payout_event PRIMARY KEY (id),
	CONSTRAINT ck_payout_event_details CHECK ((status = 'exported') = (details_id IS NOT NULL)),
	CONSTRAINT uq_payout_event_payout_id_batch_id_status UNIQUE (payout_id, batch_id, status),
	CONSTRAINT fk_payout_event_payout_id FOREIGN KEY(payout_id) REFERENCES payout (id),
	CONSTRAINT fk_payout_event_batch_id FOREIGN KEY(batch_id) REFERENCES payout_batch (id),
	CONSTRAINT fk_payout_event_details_id FOREIGN KEY(details_id) REFERENCES personal_event (id),
	CONSTRAINT fk_payout_event_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE INDEX ix_payout_event_batch_id ON payout_event (batch_id)

DROP TRIGGER ledger_txn_insert

DROP TRIGGER payout_insert

DROP TRIGGER payout_update

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
  SELECT RAISE(ABORT, 'credit refuses: there is no such transaction to reverse')
    WHERE NEW.reverses_txn_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.reverses_txn_id);
  SELECT RAISE(ABORT, 'credit refuses: the transaction has been reversed before')
    WHERE NEW.reverses_txn_id IS NOT NULL AND EXISTS (SELECT 1 FROM ledger_txn WHERE reverses_txn_id = NEW.reverses_txn_id);
  SELECT RAISE(ABORT, 'credit refuses: a reversal must negate every entry of what it reverses')
    WHERE NEW.reverses_txn_id IS NOT NULL AND (NEW.entry_count <> (SELECT entry_count FROM ledger_txn WHERE id = NEW.reverses_txn_id) OR EXISTS (SELECT 1 FROM ledger_entry AS n JOIN ledger_entry AS o ON o.txn_id = NEW.reverses_txn_id AND o.line_no = n.line_no WHERE n.txn_id = NEW.id AND (n.account_id <> o.account_id OR n.commodity <> o.commodity OR n.amount <> -o.amount)));
  SELECT RAISE(ABORT, 'credit refuses: this row of ledger_txn exists already')
    WHERE EXISTS (SELECT 1 FROM ledger_txn WHERE hash = NEW.hash) OR EXISTS (SELECT 1 FROM ledger_txn WHERE idempotency_key = NEW.idempotency_key);
END

CREATE TRIGGER payout_insert BEFORE INSERT ON payout
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a payout starts pending')
    WHERE NEW.status <> 'pending';
  SELECT RAISE(ABORT, 'credit refuses: this row of payout exists already')
    WHERE EXISTS (SELECT 1 FROM payout WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM payout WHERE period_id = NEW.period_id AND provider_id = NEW.provider_id AND currency = NEW.currency);
END

CREATE TRIGGER payout_update BEFORE UPDATE ON payout
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: only the status of a payout may change')
    WHERE NEW.id <> OLD.id OR NEW.period_id <> OLD.period_id OR NEW.provider_id <> OLD.provider_id OR NEW.currency <> OLD.currency OR NEW.amount_minor <> OLD.amount_minor OR NEW.txn_id <> OLD.txn_id;
  SELECT RAISE(ABORT, 'credit refuses: the status of a payout is that of its last event')
    WHERE NEW.status <> coalesce((SELECT e.status FROM payout_event AS e WHERE e.payout_id = NEW.id ORDER BY e.id DESC LIMIT 1), 'pending');
END

CREATE TRIGGER payout_batch_delete BEFORE DELETE ON payout_batch
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of payout_batch may be deleted');
END

CREATE TRIGGER payout_batch_insert BEFORE INSERT ON payout_batch
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of payout_batch exists already')
    WHERE EXISTS (SELECT 1 FROM payout_batch WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM payout_batch WHERE reference = NEW.reference);
END

CREATE TRIGGER payout_batch_update BEFORE UPDATE ON payout_batch
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: payout_batch is append-only: no row may be changed');
END

CREATE TRIGGER payout_event_delete BEFORE DELETE ON payout_event
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of payout_event may be deleted');
END

CREATE TRIGGER payout_event_insert BEFORE INSERT ON payout_event
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: only a payout that is pending or failed can be exported')
    WHERE NEW.status = 'exported' AND (SELECT status FROM payout WHERE id = NEW.payout_id) NOT IN ('pending', 'failed');
  SELECT RAISE(ABORT, 'credit refuses: only a payout that is exported, and in its last batch, can be paid or fail')
    WHERE NEW.status <> 'exported' AND ((SELECT status FROM payout WHERE id = NEW.payout_id) <> 'exported' OR NEW.batch_id <> (SELECT e.batch_id FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1));
  SELECT RAISE(ABORT, 'credit refuses: the last event of the payout has not reached its status')
    WHERE coalesce((SELECT e.status FROM payout_event AS e WHERE e.payout_id = NEW.payout_id ORDER BY e.id DESC LIMIT 1), 'pending') <> (SELECT status FROM payout WHERE id = NEW.payout_id);
  SELECT RAISE(ABORT, 'credit refuses: this row of payout_event exists already')
    WHERE EXISTS (SELECT 1 FROM payout_event WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM payout_event WHERE payout_id = NEW.payout_id AND batch_id = NEW.batch_id AND status = NEW.status);
END

CREATE TRIGGER payout_event_update BEFORE UPDATE ON payout_event
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: payout_event is append-only: no row may be changed');
END

CREATE TRIGGER personal_event_delete BEFORE DELETE ON personal_event
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of personal_event may be deleted');
END

CREATE TRIGGER personal_event_insert BEFORE INSERT ON personal_event
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of personal_event exists already')
    WHERE EXISTS (SELECT 1 FROM personal_event WHERE id = NEW.id);
END

CREATE TRIGGER personal_event_update BEFORE UPDATE ON personal_event
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: personal_event is append-only: no row may be changed');
END

CREATE TRIGGER provider_pii_delete BEFORE DELETE ON provider_pii
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: personal details go only by an erasure on record')
    WHERE coalesce((SELECT action FROM personal_event AS e WHERE e.provider_id = OLD.provider_id ORDER BY e.id DESC LIMIT 1), '') <> 'erased';
END

CREATE TRIGGER provider_pii_insert BEFORE INSERT ON provider_pii
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: personal details belong to an event of their provider that set them')
    WHERE NOT EXISTS (SELECT 1 FROM personal_event AS e WHERE e.id = NEW.id AND e.provider_id = NEW.provider_id AND e.action = 'set');
  SELECT RAISE(ABORT, 'credit refuses: these details exist already')
    WHERE EXISTS (SELECT 1 FROM provider_pii WHERE id = NEW.id);
END

CREATE TRIGGER provider_pii_update BEFORE UPDATE ON provider_pii
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: personal details are not changed: new ones are set, or all are erased');
END
