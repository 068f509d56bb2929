ALTER TABLE output ADD COLUMN user_hmac TEXT CONSTRAINT ck_output_user_hmac CHECK (length(user_hmac) = 41);
ALTER TABLE output ADD COLUMN text_hmac TEXT CONSTRAINT ck_output_text_hmac CHECK (length(text_hmac) = 41);
