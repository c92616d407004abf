package config

import "log/slog"

// LogLevels are the names of the levels, the incumbent's short forms included.
var LogLevels = map[string]slog.Level{
	"trace": slog.LevelDebug - 4, "trce": slog.LevelDebug - 4,
	"debug": slog.LevelDebug, "dbug": slog.LevelDebug,
	"info": slog.LevelInfo, "warn": slog.LevelWarn,
	"error": slog.LevelError, "eror": slog.LevelError,
	"crit": slog.LevelError + 4,
}
