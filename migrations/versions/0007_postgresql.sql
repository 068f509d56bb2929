CREATE TABLE seal (
	id BIGINT NOT NULL CONSTRAINT ck_seal_id CHECK (id >= 1),
	table_name TEXT COLLATE "C" NOT NULL CONSTRAINT ck_seal_table_name CHECK (length(table_name) >= 1),
	row_id BIGINT NOT NULL,
	row_sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_seal_row_sha256 CHECK (length(row_sha256) = 64),
	prev_hash TEXT COLLATE "C" NOT NULL CONSTRAINT ck_seal_prev_hash CHECK (length(prev_hash) = 64),
	hash TEXT COLLATE "C" NOT NULL CONSTRAINT ck_seal_hash CHECK (length(hash) = 64),
	CONSTRAINT pk_seal PRIMARY KEY (id),
	CONSTRAINT uq_seal_hash UNIQUE (hash)
)

CREATE INDEX ix_seal_table_name_row_id ON seal (table_name, row_id)

CREATE INDEX ix_output_ingest_file_id ON output (ingest_file_id)

CREATE FUNCTION seal_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of seal may be deleted';
END
$$

CREATE TRIGGER seal_delete BEFORE DELETE ON seal FOR EACH ROW EXECUTE FUNCTION seal_delete()

CREATE FUNCTION seal_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM seal) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a seal follows the last one';
  END IF;
  IF NEW.prev_hash <> coalesce((SELECT hash FROM seal ORDER BY id DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: prev_hash is not the hash of the last seal';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER seal_insert BEFORE INSERT ON seal FOR EACH ROW EXECUTE FUNCTION seal_insert()

CREATE FUNCTION seal_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: seal is append-only: no row may be changed';
END
$$

CREATE TRIGGER seal_update BEFORE UPDATE ON seal FOR EACH ROW EXECUTE FUNCTION seal_update()

CREATE FUNCTION seal_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of seal may be deleted';
END
$$

CREATE TRIGGER seal_truncate BEFORE TRUNCATE ON seal FOR EACH STATEMENT EXECUTE FUNCTION seal_truncate()
