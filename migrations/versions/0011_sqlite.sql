CREATE TABLE issuer (
	id INTEGER NOT NULL CONSTRAINT ck_issuer_id CHECK (id >= 1),
	name TEXT NOT NULL CONSTRAINT ck_issuer_name CHECK (length(name) >= 1),
	address TEXT NOT NULL CONSTRAINT ck_issuer_address CHECK (length(address) >= 1),
	legal TEXT NOT NULL,
	created_at TEXT NOT NULL CONSTRAINT ck_issuer_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_issuer PRIMARY KEY (id)
)
 STRICT

CREATE TRIGGER issuer_delete BEFORE DELETE ON issuer
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of issuer may be deleted');
END

CREATE TRIGGER issuer_insert BEFORE INSERT ON issuer
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of issuer exists already')
    WHERE EXISTS (SELECT 1 FROM issuer WHERE id = NEW.id);
END

CREATE TRIGGER issuer_update BEFORE UPDATE ON issuer
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: issuer is append-only: no row may be changed');
END
