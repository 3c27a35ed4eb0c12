"""The contract between the services: topics, schemas, records, codec."""
