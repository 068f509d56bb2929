CREATE TABLE purge (
  id INTEGER NOT NULL CONSTRAINT ck_purge_id CHECK (id >= 1),
  before TEXT NOT NULL CONSTRAINT ck_purge_before CHECK (before LIKE '____-__-__'),
  outputs INTEGER NOT NULL CONSTRAINT ck_purge_outputs CHECK (outputs >= 1),
  reason TEXT NOT NULL CONSTRAINT ck_purge_reason CHECK (length(reason) >= 1),
  recorded_at TEXT NOT NULL CONSTRAINT ck_purge_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_purge PRIMARY KEY (id)
) STRICT;
ALTER TABLE output ADD COLUMN salt TEXT;
ALTER TABLE output ADD COLUMN purge_id INTEGER CONSTRAINT fk_output_purge_id REFERENCES purge (id);
