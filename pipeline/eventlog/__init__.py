"""The event log: every event, numbered without gaps and committed to SQLite before anybody hears of it."""
