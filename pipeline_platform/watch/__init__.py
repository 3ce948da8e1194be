"""What people look at and are told: alerts, console, reports, health checks."""
