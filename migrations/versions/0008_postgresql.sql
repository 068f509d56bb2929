DROP TRIGGER provider_pii_insert ON provider_pii

DROP FUNCTION provider_pii_insert()

DROP TRIGGER provider_pii_update ON provider_pii

ALTER TABLE provider_pii ADD COLUMN salt TEXT COLLATE "C" CONSTRAINT ck_provider_pii_salt CHECK (length(salt) = 64)

UPDATE provider_pii SET salt = s.salt FROM salt_0008 AS s WHERE s.id = provider_pii.id

ALTER TABLE provider_pii ALTER COLUMN salt SET NOT NULL

DROP TABLE salt_0008

CREATE FUNCTION provider_pii_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM personal_event AS e WHERE e.id = NEW.id AND e.provider_id = NEW.provider_id AND e.action = 'set') OR EXISTS (SELECT 1 FROM personal_event AS e WHERE e.provider_id = NEW.provider_id AND e.id > NEW.id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: personal details belong to the last event of their provider, which set them';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER provider_pii_insert BEFORE INSERT ON provider_pii FOR EACH ROW EXECUTE FUNCTION provider_pii_insert()

CREATE TRIGGER provider_pii_update BEFORE UPDATE ON provider_pii FOR EACH ROW EXECUTE FUNCTION provider_pii_update()
