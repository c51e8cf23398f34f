"""Fixtures of the real parts: one Kafka and one MinIO a test run, fresh topics and buckets a test."""
