CREATE TABLE call_identity (
  id INTEGER NOT NULL CONSTRAINT ck_call_identity_id CHECK (id >= 1),
  kind TEXT NOT NULL CONSTRAINT ck_call_identity_kind CHECK (kind IN ('response', 'request', 'span')),
  scope TEXT NOT NULL,
  value TEXT NOT NULL CONSTRAINT ck_call_identity_value CHECK (length(value) >= 1),
  choice INTEGER NOT NULL CONSTRAINT ck_call_identity_choice CHECK (choice >= 0),
  output_id INTEGER NOT NULL,
  ingest_file_id INTEGER NOT NULL,
  CONSTRAINT pk_call_identity PRIMARY KEY (id),
  CONSTRAINT uq_call_identity_kind_scope_value_choice UNIQUE (kind, scope, value, choice),
  CONSTRAINT fk_call_identity_output_id FOREIGN KEY(output_id) REFERENCES output (id),
  CONSTRAINT fk_call_identity_ingest_file_id FOREIGN KEY(ingest_file_id) REFERENCES ingest_file (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX ix_call_identity_ingest_file_id ON call_identity (ingest_file_id);
CREATE INDEX ix_call_identity_output_id ON call_identity (output_id);
CREATE TABLE span_link (
  id INTEGER NOT NULL CONSTRAINT ck_span_link_id CHECK (id >= 1),
  trace TEXT NOT NULL CONSTRAINT ck_span_link_trace CHECK (length(trace) >= 1),
  span TEXT NOT NULL CONSTRAINT ck_span_link_span CHECK (length(span) >= 1),
  parent TEXT NOT NULL,
  is_call INTEGER NOT NULL CONSTRAINT ck_span_link_is_call CHECK (is_call IN (0, 1)),
  ingest_file_id INTEGER NOT NULL,
  CONSTRAINT pk_span_link PRIMARY KEY (id),
  CONSTRAINT uq_span_link_trace_span_parent_is_call UNIQUE (trace, span, parent, is_call),
  CONSTRAINT fk_span_link_ingest_file_id FOREIGN KEY(ingest_file_id) REFERENCES ingest_file (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE INDEX ix_span_link_ingest_file_id ON span_link (ingest_file_id);
CREATE INDEX ix_span_link_trace_parent_span_is_call ON span_link (trace, parent, span, is_call);
ALTER TABLE output ADD COLUMN line INTEGER;
