CREATE TABLE certificate (
	id INTEGER NOT NULL CONSTRAINT ck_certificate_id CHECK (id >= 1),
	index_id INTEGER NOT NULL,
	kind TEXT NOT NULL CONSTRAINT ck_certificate_kind CHECK (kind IN ('retraining', 'quick')),
	sha256 TEXT NOT NULL CONSTRAINT ck_certificate_sha256 CHECK (length(sha256) = 64),
	body_json TEXT NOT NULL,
	registered_at TEXT NOT NULL CONSTRAINT ck_certificate_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_certificate PRIMARY KEY (id),
	CONSTRAINT uq_certificate_sha256 UNIQUE (sha256),
	CONSTRAINT fk_certificate_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
)
 STRICT

CREATE INDEX ix_certificate_index_id ON certificate (index_id)

CREATE TRIGGER certificate_delete BEFORE DELETE ON certificate
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of certificate may be deleted');
END

CREATE TRIGGER certificate_insert BEFORE INSERT ON certificate
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of certificate exists already')
    WHERE EXISTS (SELECT 1 FROM certificate WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM certificate WHERE sha256 = NEW.sha256);
END

CREATE TRIGGER certificate_update BEFORE UPDATE ON certificate
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: certificate is append-only: no row may be changed');
END
