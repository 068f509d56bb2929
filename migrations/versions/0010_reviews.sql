CREATE TABLE review (
  id INTEGER NOT NULL CONSTRAINT ck_review_id CHECK (id >= 1),
  index_id INTEGER NOT NULL,
  kind TEXT NOT NULL CONSTRAINT ck_review_kind CHECK (kind IN ('overlap', 'membership')),
  sha256 TEXT NOT NULL CONSTRAINT ck_review_sha256 CHECK (length(sha256) = 64),
  body_json TEXT NOT NULL,
  registered_at TEXT NOT NULL CONSTRAINT ck_review_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_review PRIMARY KEY (id),
  CONSTRAINT uq_review_sha256 UNIQUE (sha256),
  CONSTRAINT fk_review_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
) STRICT;
CREATE INDEX ix_review_index_id ON review (index_id);
