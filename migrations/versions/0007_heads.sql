ALTER TABLE seal ADD COLUMN after_seq INTEGER CONSTRAINT ck_seal_after_seq CHECK (after_seq >= 0);
CREATE TABLE signing_key (
  id INTEGER NOT NULL CONSTRAINT ck_signing_key_id CHECK (id >= 1),
  action TEXT NOT NULL CONSTRAINT ck_signing_key_action CHECK (action IN ('new', 'rotated', 'revoked')),
  public_key TEXT NOT NULL CONSTRAINT ck_signing_key_public_key CHECK (length(public_key) >= 1),
  origin TEXT NOT NULL CONSTRAINT ck_signing_key_origin CHECK (length(origin) >= 1),
  succession TEXT NOT NULL,
  reason TEXT NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_signing_key_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_signing_key PRIMARY KEY (id),
  CONSTRAINT uq_signing_key_public_key_action UNIQUE (public_key, action),
  CONSTRAINT ck_signing_key_revoked_why CHECK ((action = 'revoked') = (length(reason) >= 1)),
  CONSTRAINT ck_signing_key_rotated_by CHECK ((action = 'rotated') = (length(succession) >= 1))
) STRICT;
CREATE TABLE head (
  id INTEGER NOT NULL CONSTRAINT ck_head_id CHECK (id >= 1),
  size INTEGER NOT NULL CONSTRAINT ck_head_size CHECK (size >= 1),
  root TEXT NOT NULL CONSTRAINT ck_head_root CHECK (length(root) = 64),
  note TEXT NOT NULL CONSTRAINT ck_head_note CHECK (length(note) >= 1),
  created_at TEXT NOT NULL CONSTRAINT ck_head_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_head PRIMARY KEY (id)
) STRICT;
