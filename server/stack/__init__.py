"""The whole system on one machine: real PostgreSQL, Envoy, sandbox, api and worker under one supervisor."""
