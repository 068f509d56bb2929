CREATE TABLE red_flag_acceptance (
  id INTEGER NOT NULL CONSTRAINT ck_red_flag_acceptance_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  sign TEXT NOT NULL CONSTRAINT ck_red_flag_acceptance_sign CHECK (length(sign) >= 1),
  subject TEXT NOT NULL,
  details_id INTEGER NOT NULL,
  accepted TEXT NOT NULL CONSTRAINT ck_red_flag_acceptance_accepted CHECK (length(accepted) >= 1),
  recorded_at TEXT NOT NULL
    CONSTRAINT ck_red_flag_acceptance_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_red_flag_acceptance PRIMARY KEY (id),
  CONSTRAINT fk_red_flag_acceptance_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_red_flag_acceptance_details_id FOREIGN KEY(details_id) REFERENCES personal_event (id)
) STRICT;
CREATE INDEX ix_red_flag_acceptance_provider_id ON red_flag_acceptance (provider_id);
