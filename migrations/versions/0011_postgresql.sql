CREATE TABLE issuer (
	id BIGINT NOT NULL CONSTRAINT ck_issuer_id CHECK (id >= 1),
	name TEXT COLLATE "C" NOT NULL CONSTRAINT ck_issuer_name CHECK (length(name) >= 1),
	address TEXT COLLATE "C" NOT NULL CONSTRAINT ck_issuer_address CHECK (length(address) >= 1),
	legal TEXT COLLATE "C" NOT NULL,
	created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_issuer_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
	CONSTRAINT pk_issuer PRIMARY KEY (id)
)

CREATE FUNCTION issuer_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of issuer may be deleted';
END
$$

CREATE TRIGGER issuer_delete BEFORE DELETE ON issuer FOR EACH ROW EXECUTE FUNCTION issuer_delete()

CREATE FUNCTION issuer_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: issuer is append-only: no row may be changed';
END
$$

CREATE TRIGGER issuer_update BEFORE UPDATE ON issuer FOR EACH ROW EXECUTE FUNCTION issuer_update()

CREATE FUNCTION issuer_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of issuer may be deleted';
END
$$

CREATE TRIGGER issuer_truncate BEFORE TRUNCATE ON issuer FOR EACH STATEMENT EXECUTE FUNCTION issuer_truncate()
