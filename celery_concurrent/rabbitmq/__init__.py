"""A RabbitMQ connection that reads and acknowledges many messages in one call."""
