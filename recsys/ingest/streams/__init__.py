"""Messages of Kafka, Redis Streams and NATS JetStream -> events. No SQL."""
