CREATE TABLE seal (
	id INTEGER NOT NULL CONSTRAINT ck_seal_id CHECK (id >= 1),
	table_name TEXT NOT NULL CONSTRAINT ck_seal_table_name CHECK (length(table_name) >= 1),
	row_id INTEGER NOT NULL,
	row_sha256 TEXT NOT NULL CONSTRAINT ck_seal_row_sha256 CHECK (length(row_sha256) = 64),
	prev_hash TEXT NOT NULL CONSTRAINT ck_seal_prev_hash CHECK (length(prev_hash) = 64),
	hash TEXT NOT NULL CONSTRAINT ck_seal_hash CHECK (length(hash) = 64),
	CONSTRAINT pk_seal PRIMARY KEY (id),
	CONSTRAINT uq_seal_hash UNIQUE (hash)
)
 STRICT

CREATE INDEX ix_seal_table_name_row_id ON seal (table_name, row_id)

CREATE INDEX ix_output_ingest_file_id ON output (ingest_file_id)

CREATE TRIGGER seal_delete BEFORE DELETE ON seal
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of seal may be deleted');
END

CREATE TRIGGER seal_insert BEFORE INSERT ON seal
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a seal follows the last one')
    WHERE NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM seal);
  SELECT RAISE(ABORT, 'credit refuses: prev_hash is not the hash of the last seal')
    WHERE NEW.prev_hash <> coalesce((SELECT hash FROM seal ORDER BY id DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000');
  SELECT RAISE(ABORT, 'credit refuses: this row of seal exists already')
    WHERE EXISTS (SELECT 1 FROM seal WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM seal WHERE hash = NEW.hash);
END

CREATE TRIGGER seal_update BEFORE UPDATE ON seal
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: seal is append-only: no row may be changed');
END
