package console

// Write appends a record, as the console does.
func (l *AuditLog) Write(rec AuditRecord) error { return l.write(rec) }
