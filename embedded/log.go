package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
)

// serverLog is the server's log: it remembers the last error, for a start that
// does not come to an end, and passes everything on when somebody asked for it.
type serverLog struct {
	to *slog.Logger

	mu   sync.Mutex
	last string
}

func (l *serverLog) log(level slog.Level, format string, v []any) {
	if level >= slog.LevelError {
		l.mu.Lock()
		l.last = fmt.Sprintf(format, v...)
		l.mu.Unlock()
	}
	if l.to != nil {
		l.to.Log(context.Background(), level, "nats-server", "text", fmt.Sprintf(format, v...))
	}
}

func (l *serverLog) lastError() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == "" {
		return "no reason given"
	}
	return l.last
}

func (l *serverLog) Noticef(format string, v ...any) { l.log(slog.LevelInfo, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.log(slog.LevelError, format, v) }

// Fatalf is where the server's own logger would end the process.
func (l *serverLog) Fatalf(format string, v ...any) { l.log(slog.LevelError, format, v) }
func (l *serverLog) Debugf(format string, v ...any) { l.log(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any) {}
