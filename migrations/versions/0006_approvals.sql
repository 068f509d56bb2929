CREATE TABLE approval_rule (
  id INTEGER NOT NULL CONSTRAINT ck_approval_rule_id CHECK (id >= 1),
  action TEXT NOT NULL CONSTRAINT ck_approval_rule_action CHECK (length(action) >= 1),
  required INTEGER NOT NULL CONSTRAINT ck_approval_rule_required CHECK (required IN (0, 1)),
  after_txn INTEGER NOT NULL CONSTRAINT ck_approval_rule_after_txn CHECK (after_txn >= 0),
  created_at TEXT NOT NULL CONSTRAINT ck_approval_rule_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_approval_rule PRIMARY KEY (id)
) STRICT;
CREATE TABLE proposal (
  id INTEGER NOT NULL CONSTRAINT ck_proposal_id CHECK (id >= 1),
  action TEXT NOT NULL CONSTRAINT ck_proposal_action CHECK (length(action) >= 1),
  arguments_json TEXT NOT NULL,
  summary TEXT NOT NULL,
  facts_sha256 TEXT NOT NULL CONSTRAINT ck_proposal_facts_sha256 CHECK (length(facts_sha256) = 64),
  row_count INTEGER NOT NULL CONSTRAINT ck_proposal_row_count CHECK (row_count >= 0),
  provider_id INTEGER,
  proposed_by TEXT NOT NULL CONSTRAINT ck_proposal_proposed_by CHECK (length(proposed_by) >= 1),
  role TEXT,
  created_at TEXT NOT NULL CONSTRAINT ck_proposal_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  preview_of INTEGER,
  CONSTRAINT pk_proposal PRIMARY KEY (id),
  CONSTRAINT fk_proposal_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_proposal_preview_of FOREIGN KEY(preview_of) REFERENCES proposal (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE TABLE proposal_details (
  id INTEGER NOT NULL,
  provider_id INTEGER NOT NULL,
  body_json TEXT NOT NULL,
  salt TEXT NOT NULL CONSTRAINT ck_proposal_details_salt CHECK (length(salt) = 64),
  CONSTRAINT pk_proposal_details PRIMARY KEY (id),
  CONSTRAINT fk_proposal_details_id FOREIGN KEY(id) REFERENCES proposal (id),
  CONSTRAINT fk_proposal_details_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
) STRICT;
CREATE INDEX ix_proposal_details_provider_id ON proposal_details (provider_id);
CREATE TABLE approval (
  id INTEGER NOT NULL CONSTRAINT ck_approval_id CHECK (id >= 1),
  proposal_id INTEGER NOT NULL,
  decision TEXT NOT NULL CONSTRAINT ck_approval_decision CHECK (decision IN ('given', 'refused')),
  action TEXT NOT NULL CONSTRAINT ck_approval_action CHECK (length(action) >= 1),
  first_row INTEGER NOT NULL CONSTRAINT ck_approval_first_row CHECK (first_row >= 0),
  last_row INTEGER NOT NULL CONSTRAINT ck_approval_last_row CHECK (last_row >= 0),
  after_txn INTEGER NOT NULL CONSTRAINT ck_approval_after_txn CHECK (after_txn >= 0),
  decided_by TEXT NOT NULL CONSTRAINT ck_approval_decided_by CHECK (length(decided_by) >= 1),
  role TEXT,
  reason TEXT NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_approval_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_approval PRIMARY KEY (id),
  CONSTRAINT uq_approval_proposal_id UNIQUE (proposal_id),
  CONSTRAINT fk_approval_proposal_id FOREIGN KEY(proposal_id) REFERENCES proposal (id)
) STRICT;
