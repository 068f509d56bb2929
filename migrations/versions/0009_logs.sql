CREATE TABLE model_alias (
  id INTEGER NOT NULL CONSTRAINT ck_model_alias_id CHECK (id >= 1),
  pattern TEXT NOT NULL CONSTRAINT ck_model_alias_pattern CHECK (length(pattern) >= 1),
  model_id INTEGER NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_model_alias_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_model_alias PRIMARY KEY (id),
  CONSTRAINT fk_model_alias_model_id FOREIGN KEY(model_id) REFERENCES model (id)
) STRICT;
CREATE INDEX ix_model_alias_pattern ON model_alias (pattern);
CREATE TABLE file_reading (
  id INTEGER NOT NULL CONSTRAINT ck_file_reading_id CHECK (id >= 1),
  path TEXT NOT NULL CONSTRAINT ck_file_reading_path CHECK (length(path) >= 1),
  how TEXT NOT NULL CONSTRAINT ck_file_reading_how CHECK (length(how) = 64),
  size INTEGER NOT NULL CONSTRAINT ck_file_reading_size CHECK (size >= 0),
  mtime_ns INTEGER NOT NULL CONSTRAINT ck_file_reading_mtime_ns CHECK (mtime_ns >= 0),
  sha256 TEXT NOT NULL CONSTRAINT ck_file_reading_sha256 CHECK (length(sha256) = 64),
  finished_bytes INTEGER,
  finished_lines INTEGER NOT NULL CONSTRAINT ck_file_reading_finished_lines CHECK (finished_lines >= 0),
  quarantined INTEGER NOT NULL CONSTRAINT ck_file_reading_quarantined CHECK (quarantined >= 0),
  unfinished INTEGER NOT NULL CONSTRAINT ck_file_reading_unfinished CHECK (unfinished >= 0),
  read_at TEXT NOT NULL CONSTRAINT ck_file_reading_read_at CHECK (read_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_file_reading PRIMARY KEY (id)
) STRICT;
CREATE INDEX ix_file_reading_path ON file_reading (path);
