CREATE TABLE provider_pii_0007 AS SELECT * FROM provider_pii

DROP TABLE provider_pii

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
	salt TEXT NOT NULL CONSTRAINT ck_provider_pii_salt CHECK (length(salt) = 64),
	CONSTRAINT pk_provider_pii PRIMARY KEY (id),
	CONSTRAINT fk_provider_pii_id FOREIGN KEY(id) REFERENCES personal_event (id),
	CONSTRAINT fk_provider_pii_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

INSERT INTO provider_pii SELECT p.id, p.provider_id, p.legal_name, p.account_holder, p.receiver, p.email, p.street, p.building, p.postcode, p.town, p.country, p.iban, p.bic, p.paypal, p.tax_id, s.salt FROM provider_pii_0007 AS p JOIN salt_0008 AS s ON s.id = p.id

DROP TABLE provider_pii_0007

DROP TABLE salt_0008

CREATE INDEX ix_provider_pii_provider_id ON provider_pii (provider_id)

CREATE TRIGGER provider_pii_delete BEFORE DELETE ON provider_pii
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: personal details go only by an erasure on record')
    WHERE coalesce((SELECT action FROM personal_event AS e WHERE e.provider_id = OLD.provider_id ORDER BY e.id DESC LIMIT 1), '') <> 'erased';
END

CREATE TRIGGER provider_pii_insert BEFORE INSERT ON provider_pii
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: personal details belong to the last event of their provider, which set them')
    WHERE NOT EXISTS (SELECT 1 FROM personal_event AS e WHERE e.id = NEW.id AND e.provider_id = NEW.provider_id AND e.action = 'set') OR EXISTS (SELECT 1 FROM personal_event AS e WHERE e.provider_id = NEW.provider_id AND e.id > NEW.id);
  SELECT RAISE(ABORT, 'credit refuses: these details exist already')
    WHERE EXISTS (SELECT 1 FROM provider_pii WHERE id = NEW.id);
END

CREATE TRIGGER provider_pii_update BEFORE UPDATE ON provider_pii
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: personal details are not changed: new ones are set, or all are erased');
END
