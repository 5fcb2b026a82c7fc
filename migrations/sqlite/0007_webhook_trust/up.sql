-- The sealed private key of the certificate that the server shows to an endpoint, for those that demand one.
ALTER TABLE webhooks ADD COLUMN client_key BLOB;
