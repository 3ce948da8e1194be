"""How the platform is observed: logs, traces and metrics."""
