"""QMP monitors relayed: messages, which of them start a migration, where clients connect."""
