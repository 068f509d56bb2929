CREATE TABLE certificate (
	id BIGINT NOT NULL CONSTRAINT ck_certificate_id CHECK (id >= 1),
	index_id BIGINT NOT NULL,
	kind TEXT COLLATE "C" NOT NULL CONSTRAINT ck_certificate_kind CHECK (kind IN ('retraining', 'quick')),
	sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_certificate_sha256 CHECK (length(sha256) = 64),
	body_json TEXT COLLATE "C" NOT NULL,
	registered_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_certificate_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_certificate PRIMARY KEY (id),
	CONSTRAINT uq_certificate_sha256 UNIQUE (sha256),
	CONSTRAINT fk_certificate_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
)

CREATE INDEX ix_certificate_index_id ON certificate (index_id)

CREATE FUNCTION certificate_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of certificate may be deleted';
END
$$

CREATE TRIGGER certificate_delete BEFORE DELETE ON certificate FOR EACH ROW EXECUTE FUNCTION certificate_delete()

CREATE FUNCTION certificate_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: certificate is append-only: no row may be changed';
END
$$

CREATE TRIGGER certificate_update BEFORE UPDATE ON certificate FOR EACH ROW EXECUTE FUNCTION certificate_update()

CREATE FUNCTION certificate_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of certificate may be deleted';
END
$$

CREATE TRIGGER certificate_truncate BEFORE TRUNCATE ON certificate FOR EACH STATEMENT EXECUTE FUNCTION certificate_truncate()
